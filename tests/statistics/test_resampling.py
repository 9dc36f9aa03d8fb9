"""Fields on another grid: plane waves land on themselves, and nothing else is made up."""

import numpy as np
import pytest
import torch

from fno_telemetry.statistics.activation import Activation, Layout
from fno_telemetry.statistics.resampling import resample
from fno_telemetry.statistics.shared_frequencies import Differences, find_coefficients


def _waves(sizes: tuple[int, ...], cycles: tuple[tuple[int, ...], ...], is_complex: bool) -> np.ndarray:
    """A sum of plane waves, each of so many cycles per axis, from the definition."""
    grids = np.meshgrid(*(np.arange(size) / size for size in sizes), indexing="ij")
    field = np.zeros(sizes, np.complex128)
    for number, wave in enumerate(cycles, 1):
        phase = 2 * np.pi * sum(k * x for k, x in zip(wave, grids, strict=True)) + number
        field += number * np.exp(1j * phase)
    return field if is_complex else field.real


@pytest.mark.parametrize("is_complex", [False, True], ids=["real", "complex"])
@pytest.mark.parametrize(
    ("before", "after", "cycles"),
    [
        ((16,), (32,), ((0,), (3,), (-7,))),
        ((17,), (24,), ((8,), (-8,), (1,))),
        ((32,), (15,), ((7,), (-7,), (2,))),
        ((12, 9), (9, 20), ((4, 4), (-4, 3), (0, -4), (3, -1))),
        ((8, 10), (16, 20), ((3, 4), (-3, 4), (1, 0))),
        ((6, 7, 8), (9, 5, 12), ((2, 2, 3), (-2, 1, -3))),
    ],
    ids=str,
)
def test_plane_waves_below_both_limits_land_on_themselves(
    before: tuple[int, ...], after: tuple[int, ...], cycles: tuple[tuple[int, ...], ...], is_complex: bool
) -> None:
    given, expected = (torch.from_numpy(_waves(sizes, cycles, is_complex)) for sizes in (before, after))
    found = resample(
        given[None, :, None] if len(before) == 1 else given[None], range(1, len(before) + 1), after
    )
    found = found[0, :, 0] if len(before) == 1 else found[0]
    assert found.shape == expected.shape and found.dtype == given.dtype
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [7, 8, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128, torch.bfloat16])
def test_refined_and_made_coarse_again_is_as_before(size: int, dtype: torch.dtype) -> None:
    # Also the wave at the Nyquist limit, which has no sign.
    field = torch.randn(2, size, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    there = resample(field, (1, 2), (2 * size, 20))
    torch.testing.assert_close(
        resample(there, (1, 2), (size, 9)), field, rtol=1e-5, atol=0.05 if dtype is torch.bfloat16 else 1e-5
    )


def test_a_wave_that_the_coarser_grid_cannot_hold_is_cut_off() -> None:
    field = torch.from_numpy(_waves((32,), ((2,), (12,)), False))
    expected = torch.from_numpy(_waves((16,), ((2,),), False))
    torch.testing.assert_close(resample(field, (0,), (16,)), expected, rtol=0, atol=1e-12)


def test_differences_are_of_the_frequencies_that_both_grids_have() -> None:
    # 3 * (2, 0) is on both grids, (0, 7) on the finer one alone; the mean counts in a band of its own.
    def measure(sizes: tuple[int, ...], factor: float, mean: float, cycles: tuple[tuple[int, ...], ...]):
        field = mean + factor * torch.from_numpy(_waves(sizes, cycles, False))[None, None]
        return find_coefficients(Activation(field, Layout(0, 1, (2, 3))))

    found = Differences()
    found.add(measure((8, 9), 1, 5, ((2, 0),)), measure((16, 18), 1.5, 6, ((2, 0), (0, 7))))
    difference, before, after = found.sums.tolist()
    assert (difference / before, after / before) == pytest.approx((0.25, 2.25))
    assert found.bands[:, 0].tolist() == pytest.approx([1, 25, 36])
    assert found.bands[0, 1:].sum() == pytest.approx(difference)
    assert found.bands[1].nonzero().flatten().tolist()[0] == 0
    # 2 cycles of 8 points are |f| = 1/4, which ends the 8th band of 1/32.
    assert int(found.bands[1, 1:].argmax()) == 7
