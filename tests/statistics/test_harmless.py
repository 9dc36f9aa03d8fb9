"""Measuring leaves the host program as it was, and never raises for a tensor that can be measured."""

import dataclasses
import math
import random
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from fno_telemetry.statistics import legacy
from fno_telemetry.statistics.activation import Activation, Layout, dtype_name, unmeasurable
from fno_telemetry.statistics.branches import Branches, Gains, Updates
from fno_telemetry.statistics.channels import Channels
from fno_telemetry.statistics.contract import Known, summarize_state
from fno_telemetry.statistics.samples import Samples
from fno_telemetry.statistics.spectrum import Spectrum
from fno_telemetry.statistics.subjects import SpectralInput
from fno_telemetry.statistics.truncation import Truncation
from fno_telemetry.statistics.values import Values
from support.subjects import of_two

LAYOUT = Layout(0, 1, (2, 3))

FLOATING = [
    getattr(torch, name)
    for name in (
        "float16",
        "bfloat16",
        "float32",
        "float64",
        "complex32",
        "complex64",
        "complex128",
        "float8_e4m3fn",
        "float8_e4m3fnuz",
        "float8_e5m2",
        "float8_e5m2fnuz",
        "float8_e8m0fnu",
    )
    if hasattr(torch, name)
]
every_dtype = pytest.mark.parametrize("dtype", FLOATING, ids=dtype_name)


def _states(tensor: torch.Tensor, layout: Layout = LAYOUT) -> list[Any]:
    """Everything that can be measured of a tensor, summarized too."""
    one, other = Activation(tensor, layout), Activation(tensor, layout)
    known: dict[str, Any] = {}
    states: list[Any] = []
    for statistic in (Values(), Channels(), Samples(), Spectrum()):
        states.append(statistic.measure(one))
        known |= summarize_state(statistic, states[-1], Known(known)).stats
    sizes = [tensor.shape[axis] for axis in layout.space]
    if sizes:
        sizes[-1] = sizes[-1] if tensor.is_complex() else sizes[-1] // 2 + 1
        states.append(Truncation().measure(SpectralInput(one, torch.ones(sizes, dtype=torch.bool))))
        summarize_state(Truncation(), states[-1], Known(known))
    for pair in (Branches(), Updates(), Gains()):
        states.append(pair.measure(of_two(pair, one, other)))
        summarize_state(pair, states[-1], Known(known))
    states.append(legacy.measure(tensor, one, states[0], True))
    states[-1].columns()
    return states


def _tensors(state: Any) -> Iterator[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        yield state
    elif dataclasses.is_dataclass(state):
        for field in dataclasses.fields(state):
            yield from _tensors(getattr(state, field.name))


def _patterns(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Random bytes: NaN, infinities, zeros and subnormals among them."""
    count = math.prod(shape) * dtype.itemsize
    generator = torch.Generator().manual_seed(1)
    noise = torch.randint(0, 256, (count,), dtype=torch.uint8, generator=generator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls complex32 experimental whenever one is made
        return noise.view(dtype).reshape(shape)


@every_dtype
@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((), Layout(None, None)),
        ((1,), Layout(0, None)),
        ((5,), Layout(None, 0)),
        ((0,), Layout(0, None)),
        ((0, 3, 8, 8), LAYOUT),
        ((2, 0, 8, 8), LAYOUT),
        ((2, 3, 8, 0), LAYOUT),
        ((2, 3, 0, 8), LAYOUT),
        ((2, 3, 1, 1), LAYOUT),
        ((2, 3, 8, 7), LAYOUT),
        ((2, 3, 2), Layout(0, 1, (2,))),
        ((2, 3, 4, 5), Layout(None, None)),
        ((1, 2, 3, 4, 5), Layout(0, 1, (2, 3, 4))),
        ((2, 2, 2, 2, 2, 2, 2), Layout(0, 1, (4, 5, 6))),
    ],
    ids=str,
)
def test_any_bit_pattern_of_any_precision_and_shape_is_measured_without_a_warning(
    dtype: torch.dtype, shape: tuple[int, ...], layout: Layout
) -> None:
    tensor = _patterns(shape, dtype)
    assert unmeasurable(tensor) is None
    values = Values().summarize(Values().measure(Activation(tensor, layout)), Known())
    assert values.stats["count"] == math.prod(shape)
    assert _states(tensor, layout)


@pytest.mark.parametrize("dtype", [d for d in FLOATING if d.itemsize <= 2], ids=dtype_name)
def test_a_narrow_tensor_counts_as_its_float32_copy(dtype: torch.dtype) -> None:
    tensor = _patterns((2, 3, 16, 16), dtype)
    found, expected = (
        Values().summarize(Values().measure(Activation(t, LAYOUT)), Known()) for t in (tensor, tensor.float())
    )
    exact = ("count", "nan_count", "inf_count", "min", "max", "mean", "std", "zero_fraction")
    assert {key: found.stats[key] for key in exact} == {key: expected.stats[key] for key in exact}


def _bits(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.reshape(-1).view(torch.uint8).numpy())


@every_dtype
@pytest.mark.parametrize("on_host", [True, False])
@pytest.mark.parametrize("finite", [True, False])
def test_the_tensor_keeps_every_bit(
    dtype: torch.dtype, on_host: bool, finite: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Activation, "on_host", on_host)
    tensor = _patterns((2, 3, 9, 8), dtype)
    if finite and dtype.itemsize > 1:  # else nearly every tensor of random bytes holds a NaN
        tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0)))
    bits, version = _bits(tensor), tensor._version
    _states(tensor)
    assert _bits(tensor) == bits
    assert tensor._version == version


def test_nothing_is_recorded_for_the_backward_pass() -> None:
    weight = torch.ones(3, 1, 1, requires_grad=True)
    output = torch.ones(2, 3, 8, 8) * weight
    for state in _states(output):
        assert not any(t.requires_grad for t in _tensors(state))
    output.sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.full((3, 1, 1), 128.0))


def test_no_random_number_is_drawn() -> None:
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    _states(_patterns((2, 3, 9, 8), torch.float32))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert str(np.random.get_state()) == str(states[2])


@pytest.mark.parametrize("on_host", [True, False])
@pytest.mark.parametrize("shape", [(2, 3, 9, 8), (1, 1, 1, 1), (1, 3, 1, 1), (4, 1, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex128], ids=dtype_name)
def test_states_keep_neither_the_tensor_nor_more_memory_than_they_show(
    shape: tuple[int, ...], dtype: torch.dtype, on_host: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Activation, "on_host", on_host)
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    memory, gone = tensor.untyped_storage().data_ptr(), weakref.ref(tensor)
    states = _states(tensor)
    for state in states:
        for kept in _tensors(state):
            assert kept.untyped_storage().data_ptr() != memory
            assert kept.untyped_storage().nbytes() <= max(2 * kept.nbytes, 64)
    del tensor
    assert gone() is None


def test_states_of_a_large_tensor_are_small() -> None:
    tensor = torch.randn((16, 8, 64, 64), generator=torch.Generator().manual_seed(0))
    samples = Samples().measure(Activation(tensor, LAYOUT))
    kept = {
        statistic.name: sum(t.nbytes for t in _tensors(statistic.measure(Activation(tensor, LAYOUT))))
        for statistic in (Values(), Channels(), Spectrum())
    }
    assert kept["values"] < 600_000  # the sketch's 2^16 counts
    assert kept["channels"] < 1_000 and kept["spectrum"] < 1_000
    assert sum(t.nbytes for t in _tensors(samples)) == 8 * 64 * 64 * 8 + 8 + 8 + 8


def _nested() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls nested tensors a prototype
        return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])


def _jagged() -> torch.Tensor:
    return torch.nested.nested_tensor([torch.ones(2, 2), torch.ones(3, 2)], layout=torch.jagged)


def _compressed() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls compressed tensors a beta
        return torch.eye(3).to_sparse_csr()


UNMEASURABLE = {
    "int64 values are not measured": lambda: torch.ones(2, dtype=torch.int64),
    "uint8 values are not measured": lambda: torch.ones(2, dtype=torch.uint8),
    "bool values are not measured": lambda: torch.ones(2, dtype=torch.bool),
    "torch.sparse_coo tensors are not measured": lambda: torch.eye(3).to_sparse(),
    "torch.sparse_csr tensors are not measured": _compressed,
    "nested tensors are not measured": _nested,
    "a meta tensor has no values": lambda: torch.ones(2, device="meta"),
}


@pytest.mark.parametrize("reason", UNMEASURABLE)
def test_what_cannot_be_measured_says_why(reason: str) -> None:
    assert unmeasurable(UNMEASURABLE[reason]()) == reason


def test_a_jagged_tensor_is_nested_too() -> None:
    assert unmeasurable(_jagged()) == "nested tensors are not measured"


def test_a_packed_four_bit_tensor_is_not_taken_for_numbers() -> None:
    if not hasattr(torch, "float4_e2m1fn_x2"):
        pytest.skip("this torch has no four-bit precision")
    packed = torch.ones(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    assert unmeasurable(packed) == "float4_e2m1fn_x2 values are not measured"


@every_dtype
def test_whatever_can_be_measured_has_no_reason_not_to(dtype: torch.dtype) -> None:
    assert unmeasurable(_patterns((3,), dtype)) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
def test_the_memory_of_a_tensor_can_still_be_resized(dtype: torch.dtype) -> None:
    tensor = _patterns((2, 3, 8, 8), dtype).nan_to_num(1.0, 1.0, 1.0)
    one = Activation(tensor, LAYOUT)
    for statistic in (Values(), Channels(), Samples(), Spectrum()):
        statistic.measure(one)
    del one
    tensor.untyped_storage().resize_(0)
