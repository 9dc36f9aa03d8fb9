"""Whether axes are in the order of the target: the slow reference, known answers, and what is undefined."""

from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
import torch

from fno_telemetry.statistics.activation import Activation, Layout
from fno_telemetry.statistics.contract import Summary, keys_of, merge_states, summarize_state
from fno_telemetry.statistics.field_order import FieldOrder
from fno_telemetry.statistics.low_frequencies import Order, find_low_frequencies, list_orders
from fno_telemetry.statistics.subjects import Comparison

CYCLES = {1: 16, 2: 8, 3: 4}


def _reference(x: np.ndarray, y: np.ndarray) -> dict[tuple[Any, Any], float]:
    """The coherence of (N, C, *S) and (N, D, *S) in every order of x, frequency by frequency."""
    count, sizes = len(x), x.shape[2:]
    highest = [min(CYCLES[len(sizes)], (size - 1) // 2) for size in sizes]
    found = {}
    for axes in permutations(range(len(sizes))):
        if [sizes[axis] for axis in axes] != list(sizes):
            continue
        for flipped in product((False, True), repeat=len(sizes)):
            turned = np.transpose(x, (0, 1, *(2 + axis for axis in axes)))
            turned = np.flip(turned, [2 + axis for axis, flips in enumerate(flipped) if flips])
            space = tuple(range(2, x.ndim))
            one, other = (
                side - side.mean(0) for side in (np.fft.fftn(turned, axes=space), np.fft.fftn(y, axes=space))
            )
            waves = [w for w in product(*(range(-h, h + 1) for h in highest)) if any(w)]
            means = []
            for c, d in product(range(x.shape[1]), range(y.shape[1])):
                at = [(one[(slice(None), c, *w)], other[(slice(None), d, *w)]) for w in waves]
                energies = np.array([[(abs(a) ** 2).sum(), (abs(b) ** 2).sum()] for a, b in at])
                counts = (energies >= 1e-4 * energies.sum(0)).all(1)
                values = [
                    abs((a.conj() * b).sum()) ** 2 / (e * f)
                    for (a, b), (e, f), is_counted in zip(at, energies, counts, strict=True)
                    if is_counted
                ]
                means.append(np.mean(values) if values else 0)
            bias = 1 / (count - 1)
            found[axes, flipped] = (max(means) - bias) / (1 - bias)
    return found


def _activation(field: torch.Tensor) -> Activation:
    return Activation(field, Layout(0, 1, tuple(range(2, field.ndim))))


def _compare(x: torch.Tensor, y: torch.Tensor, entered: torch.Tensor | None = None) -> Summary:
    given = None if entered is None else find_low_frequencies(_activation(entered))
    state = FieldOrder().measure(Comparison(_activation(x), _activation(y), given))
    return summarize_state(FieldOrder(), state)


def _noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128], ids=str)
@pytest.mark.parametrize("sizes", [(9,), (6, 6), (5, 8), (4, 4, 3)], ids=str)
def test_coherences_are_those_of_the_reference(sizes: tuple[int, ...], dtype: torch.dtype) -> None:
    y = _noise(7, 2, *sizes, seed=1, dtype=dtype)
    x = y.flip(2) + 0.5 * _noise(7, 2, *sizes, seed=2, dtype=dtype) + 3
    expected = _reference(x.numpy().astype(complex), y.numpy().astype(complex))
    found = _compare(x, y)
    as_given = expected.pop((tuple(range(len(sizes))), (False,) * len(sizes)))
    assert found.stats["output_coherence"] == pytest.approx(as_given, rel=1e-5, abs=1e-6)
    [order] = found.accuracy_orders or ()
    best = max(expected, key=expected.__getitem__)
    assert order.output == pytest.approx(expected[best], rel=1e-5)
    assert expected[order.axes, order.flipped] == pytest.approx(expected[best], rel=1e-9)
    assert found.stats["input_coherence"] is None


def test_what_an_operator_does_to_a_wave_does_not_matter() -> None:
    x = _noise(9, 1, 12, 12, seed=3)
    wave = torch.fft.fftfreq(12, dtype=torch.float64) * 12
    kernel = torch.exp(-wave[:, None].abs() / 3 + 1j * wave[None])
    y = torch.fft.ifft2(torch.fft.fft2(x) * kernel)
    found = _compare(y, y, torch.complex(x, torch.zeros_like(x)))
    assert found.stats["input_coherence"] == pytest.approx(1)
    assert found.stats["output_coherence"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("turn", "axes", "flipped", "words"),
    [
        (lambda x: x.transpose(2, 3), (1, 0), (False, False), "swapped axes"),
        (lambda x: x.flip(2), (0, 1), (True, False), "a flip along spatial axis 0"),
        (lambda x: x.rot90(1, (2, 3)), (1, 0), (False, True), "swapped axes and a flip along spatial axis 1"),
    ],
)
def test_the_order_that_is_named_brings_back_the_target(
    turn: Any, axes: tuple[int, int], flipped: tuple[bool, bool], words: str
) -> None:
    y = _noise(16, 1, 16, 16, seed=4)
    found = _compare(y, y, turn(y))
    [order] = [each for each in found.accuracy_orders or () if (each.input or 0) > 0.5]
    assert (order.axes, order.flipped, str(order)) == (axes, flipped, words)
    back = turn(y).permute(0, 1, *(2 + axis for axis in order.axes))
    assert torch.equal(back.flip([2 + axis for axis in range(2) if order.flipped[axis]]), y)
    assert order.input == pytest.approx(1)
    assert found.stats["input_coherence"] < 0.2


def test_noise_is_what_pairs_without_a_relation_have() -> None:
    found = [_compare(_noise(12, 1, 16, 16, seed=s), _noise(12, 1, 16, 16, seed=99 - s)) for s in range(20)]
    spread = np.sqrt(np.mean([float(each.stats["output_coherence"]) ** 2 for each in found]))
    noise = float(found[0].stats["output_noise"])
    assert noise / 1.5 < spread < 1.5 * noise


def test_batches_give_what_all_samples_give() -> None:
    x, y = _noise(10, 2, 8, 9, seed=1), _noise(10, 1, 8, 9, seed=2)

    def measure(part: slice) -> Any:
        given = find_low_frequencies(_activation(x[part]))
        return FieldOrder().measure(Comparison(_activation(x[part, :1]), _activation(y[part]), given))

    whole = summarize_state(FieldOrder(), measure(slice(None)))
    parts = summarize_state(FieldOrder(), merge_states(measure(slice(3)), measure(slice(3, None))))
    assert parts.stats == pytest.approx(whole.stats, rel=1e-9)
    other = merge_states(
        measure(slice(None)), FieldOrder().measure(Comparison(*[_activation(y[..., :7])] * 2))
    )
    assert summarize_state(FieldOrder(), other).reasons["output_coherence"] == (
        "the size of the fields changed between batches"
    )


def test_axes_of_other_sizes_are_not_swapped() -> None:
    assert {order.axes for order in list_orders((8, 9))} == {(0, 1)}
    assert len(list(list_orders((8, 8, 8)))) == 48
    assert next(list_orders((4, 4))) == Order((0, 1), (False, False))


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        (_noise(3, 1, 8, 8), _noise(3, 1, 8, 8), "there are fewer than 4 samples"),
        (
            _noise(1, 1, 8, 8).expand(5, 1, 8, 8),
            _noise(5, 1, 8, 8),
            "the fields do not differ between samples at low frequencies",
        ),
        (
            torch.full((5, 1, 8, 8), torch.inf),
            _noise(5, 1, 8, 8),
            "320 elements of the output and the target are not finite",
        ),
        (_noise(5, 3), _noise(5, 3), "the output and the target do not both have samples and spatial axes"),
        (1e200 * _noise(5, 1, 8, 8), _noise(5, 1, 8, 8), "the squares overflow float64"),
    ],
    ids=["few", "alike", "not finite", "no space", "overflow"],
)
def test_what_is_undefined_says_why(x: torch.Tensor, y: torch.Tensor, reason: str) -> None:
    found = _compare(x, y)
    assert found.stats["output_coherence"] is None and found.reasons["output_coherence"] == reason
    assert set(found.stats) == set(keys_of(FieldOrder())) and found.accuracy_orders is None
