"""Energies over frequency: their sum, and the share that a layer's modes leave out."""

import math
from typing import Any

import pytest
import torch

from fno_telemetry.statistics.activation import Activation, Layout
from fno_telemetry.statistics.contract import summarize_state
from fno_telemetry.statistics.spectrum import Spectrum
from fno_telemetry.statistics.subjects import SpectralInput
from fno_telemetry.statistics.truncation import Truncation

EVERY_DTYPE = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128]


def _noise(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    wide = torch.complex128 if dtype.is_complex else torch.float64
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=wide).to(dtype)


@pytest.mark.parametrize("shape", [(2, 3, 33), (2, 2, 16, 15), (1, 2, 15, 16), (1, 2, 5, 6, 7)])
@pytest.mark.parametrize("dtype", EVERY_DTYPE, ids=lambda dtype: str(dtype).removeprefix("torch."))
def test_energies_over_frequency_sum_to_that_in_space(
    shape: tuple[int, ...], dtype: torch.dtype, as_array: Any
) -> None:
    tensor = _noise(shape, dtype) + 3
    state: Any = Spectrum().measure(Activation(tensor, Layout(0, 1, tuple(range(2, len(shape))))))
    assert math.isclose(float(state.total + state.dc), (abs(as_array(tensor)) ** 2).sum(), rel_tol=1e-5)
    assert math.isclose(float(state.bands.sum()), float(state.total), rel_tol=1e-9)


@pytest.mark.parametrize("sizes", [(9,), (8,), (6, 9), (9, 6), (4, 5, 6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=["real", "complex"])
def test_the_truncated_share_equals_the_reference(
    sizes: tuple[int, ...], dtype: torch.dtype, reference: Any, as_array: Any
) -> None:
    tensor = _noise((2, 3, *sizes), dtype)
    tensor[0, 1].view(-1)[2], tensor[1, 2].view(-1)[0] = math.nan, math.inf
    space = tuple(range(2, tensor.ndim))
    lengths = (*sizes[:-1], sizes[-1] // 2 + 1) if not dtype.is_complex else sizes
    limit = 2  # modes of index -2 ... 2 along each axis

    def kept(*frequencies: Any) -> bool:
        return all(abs(f * size) <= limit for f, size in zip(frequencies, sizes, strict=True))

    mask = torch.ones(lengths, dtype=torch.bool)
    for axis, size in enumerate(sizes):
        index = torch.arange(lengths[axis])
        near = torch.minimum(index, size - index) <= limit
        mask &= near.reshape([-1 if a == axis else 1 for a in range(len(sizes))])
    state = Truncation().measure(SpectralInput(Activation(tensor, Layout(0, 1, space)), mask))
    found = summarize_state(Truncation(), state).stats["truncated_energy_fraction"]
    expected = reference.truncated_energy_fraction(as_array(tensor), space, kept)
    assert 0.1 < expected < 1
    assert found == pytest.approx(expected, abs=1e-6)
