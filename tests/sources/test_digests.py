"""The input digest: its definition, and that no split or memory layout changes it."""

import hashlib
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fno_telemetry.sources import digests
from fno_telemetry.sources.digests import InputDigest, InputsDigest


def digest(*batches: torch.Tensor) -> str:
    result = InputDigest()
    for batch in batches:
        result.update(batch)
    return result.hexdigest()


def slow_digest(values: torch.Tensor) -> str:
    """The documented definition, word for word."""
    dtype = "<c8" if values.is_complex() else "<f4"
    shape = ",".join(str(size) for size in values.shape)
    return hashlib.sha256(values.numpy().astype(dtype).tobytes("C") + shape.encode("ascii")).hexdigest()


@given(cuts=st.lists(st.integers(0, 12), max_size=5), is_complex=st.booleans())
def test_any_split_into_batches_gives_the_digest_of_the_whole(cuts: list[int], is_complex: bool) -> None:
    values = torch.linspace(-1, 1, 12 * 2 * 3 * 4).reshape(12, 2, 3, 4)
    if is_complex:
        values = torch.complex(values, values.flip(0))
    split = torch.tensor_split(values, sorted(cuts))
    assert digest(*split) == digest(values) == slow_digest(values)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64, torch.uint8, torch.complex128])
def test_other_number_types_are_digested_as_single_precision(dtype: torch.dtype) -> None:
    values = torch.arange(24).reshape(2, 3, 4).to(dtype) / 7 if dtype.is_floating_point else torch.ones(2, 3)
    assert digest(values.to(dtype)) == slow_digest(values.to(dtype))


@pytest.mark.parametrize("shape", [(5, 3, 8, 8), (2, 3, 700, 900)], ids=["small", "larger than a piece"])
def test_memory_layout_changes_nothing(shape: tuple[int, ...]) -> None:
    values = torch.rand(shape)
    expected = slow_digest(values)
    assert digest(values.contiguous(memory_format=torch.channels_last)) == expected
    assert digest(values.mT.contiguous().mT) == expected
    assert digest(values.transpose(0, 3).contiguous().transpose(0, 3)) == expected
    assert digest(torch.stack([values, values], -1)[..., 0]) == expected
    assert digest(values.clone().requires_grad_()) == expected


def test_a_lazily_conjugated_tensor_is_digested_by_its_values() -> None:
    values = torch.complex(torch.rand(3, 4), torch.rand(3, 4))
    assert digest(values.conj()) == slow_digest(values.conj().resolve_conj())
    assert digest(values.conj().imag) == slow_digest(-values.imag)


def test_values_order_and_shape_all_count() -> None:
    values = torch.arange(24.0).reshape(4, 6)
    changed = values.clone()
    changed[3, 5] += 1e-5
    others = [changed, values.flip(0), values.reshape(6, 4), values.reshape(4, 6, 1), values[:3], -values]
    assert len({digest(other) for other in (values, *others)}) == 1 + len(others)


def test_batches_of_other_sizes_begin_a_new_whole() -> None:
    small, large = torch.rand(4, 1, 2, 2), torch.rand(2, 1, 4, 4)
    assert digest(small, large) == digest(small[:1], small[1:], large[:1], large[1:])
    assert digest(small, large) != digest(large, small)
    by_hand = hashlib.sha256()
    for part, shape in ((small, b"4,1,2,2"), (large, b"2,1,4,4")):
        by_hand.update(part.numpy().astype("<f4").tobytes() + shape)
    assert digest(small, large) == by_hand.hexdigest()


def test_a_digest_may_be_read_in_between() -> None:
    values = torch.rand(6, 3)
    running = InputDigest()
    running.update(values[:2])
    assert running.hexdigest() == digest(values[:2])
    running.update(values[2:])
    assert running.hexdigest() == digest(values)


def test_a_tensor_without_axes_counts_as_one_value() -> None:
    assert digest(torch.tensor(3.0)) == digest(torch.tensor([3.0]))


def test_tensors_on_a_device_are_copied_at_once_and_digested_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = torch.rand(6, 3, dtype=torch.float64)
    expected = InputsDigest()
    expected.update([values.clone(), values[0].clone()])
    monkeypatch.setattr(digests, "_is_away", lambda tensor: tensor.dtype == torch.float64)
    monkeypatch.setattr(digests, "MOST_WAITING", 2 * 3 * 3 * 8)
    digested: list[int] = []
    update = InputDigest.update
    monkeypatch.setattr(
        InputDigest, "update", lambda self, one: (digested.append(len(one)), update(self, one))
    )
    running = InputsDigest()
    running.update([values[:3], values[0]])
    assert digested == []
    kept = values.clone()
    values.zero_()  # as a forward might
    found = running.hexdigest()
    assert digested == [3, 3]
    alone, host = InputsDigest(), kept.float()
    # One more than may wait, then one in host memory, which comes after those that wait.
    for part in (kept[:3], kept[3:5], kept[5:], kept[:1], host[1:2]):
        alone.update([part])
    assert digested[2:] == [3, 2, 1, 1, 1]
    assert alone.hexdigest() == digest(host, host[:2])
    whole = InputsDigest()
    whole.update([kept[:3], kept[0]])
    assert found == whole.hexdigest() != expected.hexdigest()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_memory_stays_bounded(dtype: torch.dtype) -> None:
    values = torch.zeros(8, 1024, 1024, dtype=dtype)
    tracemalloc.start()
    try:
        digest(values.mT)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
    assert digest(values) == slow_digest(torch.from_numpy(np.zeros(values.shape, "f4")))
