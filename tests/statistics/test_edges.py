"""Errors and jumps at the edges of fields: the slow reference, and what is undefined."""

from typing import Any

import numpy as np
import pytest
import torch

from fno_telemetry.statistics.activation import Activation, Layout
from fno_telemetry.statistics.contract import Summary, keys_of, merge_states, summarize_state
from fno_telemetry.statistics.edges import Edges
from fno_telemetry.statistics.subjects import Comparison

NAMES = keys_of(Edges())


def _reference(z: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """The three numbers of fields (N, C, *S), point by point."""
    found = []
    for axis in range(2, z.ndim):
        size = z.shape[axis]
        if size < 8:
            continue
        squares: dict[bool, list[float]] = {True: [], False: []}
        for place, value in np.ndenumerate(abs(z - y) ** 2):
            squares[not size // 16 <= place[axis] < size - size // 16].append(value)
        if size < 16:
            squares = {True: [], False: []}
            for place, value in np.ndenumerate(abs(z - y) ** 2):
                squares[place[axis] in (0, size - 1)].append(value)
        jumps = []
        for field in (y, z):
            rows = np.moveaxis(field, axis, 0)
            steps = [abs(rows[i + 1] - rows[i]) ** 2 for i in range(size - 1)]
            jumps.append(np.sqrt(np.mean(abs(rows[0] - rows[-1]) ** 2) / np.mean(steps)))
        found.append((np.sqrt(np.mean(squares[True]) / np.mean(squares[False])), *jumps))
    return max(found)


def _noise(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _measure(z: torch.Tensor, y: torch.Tensor) -> Any:
    layout = Layout(0, 1, tuple(range(2, z.ndim)))
    return Edges().measure(Comparison(Activation(z, layout), Activation(y, layout)))


def _compare(z: torch.Tensor, y: torch.Tensor) -> Summary:
    return summarize_state(Edges(), _measure(z, y))


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128, torch.bfloat16], ids=str)
@pytest.mark.parametrize("sizes", [(33,), (9, 40), (6, 16), (8, 9, 5)], ids=str)
def test_numbers_are_those_of_the_reference(sizes: tuple[int, ...], dtype: torch.dtype) -> None:
    y = (
        (_noise(2, 2, *sizes, seed=1, dtype=dtype if dtype.is_complex else torch.float64))
        .cumsum(-1)
        .to(dtype)
    )
    z = y + _noise(2, 2, *sizes, seed=2, dtype=dtype if dtype.is_complex else torch.float64).to(dtype)
    wide = [side.to(torch.complex128 if dtype.is_complex else torch.float64).numpy() for side in (z, y)]
    found = _compare(z, y)
    assert [found.stats[name] for name in NAMES] == pytest.approx(_reference(*wide), rel=1e-6)


def test_periodic_fields_do_not_jump_and_ramps_do() -> None:
    position = torch.arange(32, dtype=torch.float64) / 32
    wave = torch.sin(2 * torch.pi * (position[None] + torch.rand(8, 1))).reshape(8, 1, 32)
    ramp = position.reshape(1, 1, 32).expand(8, 1, 32)
    error = 0.01 * _noise(8, 1, 32, seed=1)
    assert _compare(wave + error, wave).stats["target_edge_jump"] == pytest.approx(1, abs=0.2)
    assert _compare(ramp + error, ramp).stats["target_edge_jump"] == pytest.approx(31)
    error[..., :2] *= 3
    error[..., -2:] *= 3
    assert _compare(ramp + error, ramp).stats["edge_error_ratio"] == pytest.approx(3, rel=0.3)


def test_batches_of_any_size_give_what_all_give() -> None:
    z, y = _noise(6, 1, 16, 9, seed=1), _noise(6, 1, 16, 9, seed=2)
    parts = merge_states(_measure(z[:1], y[:1]), _measure(z[1:], y[1:]))
    assert summarize_state(Edges(), parts).stats == pytest.approx(_compare(z, y).stats, rel=1e-12)
    other = merge_states(_measure(z, y), _measure(z[..., 0], y[..., 0]))
    assert summarize_state(Edges(), other).reasons[NAMES[0]] == (
        "the number of spatial axes changed between batches"
    )


@pytest.mark.parametrize(
    ("z", "y", "reasons"),
    [
        (_noise(2, 3, seed=1), _noise(2, 3, seed=2), dict.fromkeys(NAMES, "no spatial axes are known")),
        (
            _noise(2, 1, 7, seed=1),
            _noise(2, 1, 7, seed=2),
            dict.fromkeys(NAMES, "no spatial axis has 8 points"),
        ),
        (_noise(2, 1, 9, seed=1), _noise(2, 1, 9, seed=1), dict.fromkeys(NAMES, "there is no error inside")),
        (_noise(2, 1, 9, seed=1), torch.ones(2, 1, 9), {"target_edge_jump": "neighbours do not differ"}),
        (
            torch.full((2, 1, 9), torch.nan),
            torch.ones(2, 1, 9),
            dict.fromkeys(NAMES, "18 elements of the output and the target are not finite"),
        ),
    ],
    ids=["no space", "small", "no error", "constant", "not finite"],
)
def test_what_is_undefined_says_why(z: torch.Tensor, y: torch.Tensor, reasons: dict[str, str]) -> None:
    found = _compare(z, y)
    assert dict(found.reasons) == reasons
    assert [name for name, value in found.stats.items() if value is None] == list(reasons)
