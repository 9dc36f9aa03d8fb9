"""The band of every frequency of every grid of 8 to 33 points, in one to three dimensions."""

from collections.abc import Iterator
from itertools import combinations_with_replacement, permutations, product
from typing import Any

import numpy as np
import pytest
import torch

from fno_telemetry.statistics.frequency_bands import band_edges, radial_bands
from fno_telemetry.statistics.frequency_grid import frequency_grid

POINTS = range(8, 34)


@pytest.fixture(autouse=True)
def kernels_in_use() -> Iterator[None]:
    """No kernel takes part, so nothing is tested twice."""
    yield


@pytest.mark.parametrize("dimensions", [1, 2])
@pytest.mark.parametrize("real", [True, False], ids=["real", "complex"])
def test_every_coefficient_is_in_the_band_of_its_frequency(
    dimensions: int, real: bool, reference: Any
) -> None:
    for sizes in product(POINTS, repeat=dimensions):
        expected = reference.bands(sizes)
        for axis, size in enumerate(sizes):
            # The last axis of a real transform has no negative frequencies.
            halved = real and axis == dimensions - 1
            signed = np.fft.rfftfreq(size, 1 / size) if halved else np.fft.fftfreq(size, 1 / size)
            expected = expected.take(abs(signed).astype(int), axis)
        found = frequency_grid.__wrapped__(sizes, real, torch.device("cpu")).band
        assert np.array_equal(found.numpy(), expected), sizes


def test_every_frequency_in_three_dimensions_is_in_its_band(reference: Any) -> None:
    # 17,576 grids, which takes some seconds: a sample would have missed the only frequencies that float64
    # puts beyond their edge, on 24 x 30 x 30 points.
    for sizes in combinations_with_replacement(POINTS, 3):
        expected = reference.bands(sizes)
        for order in permutations(range(3)):
            found = radial_bands(tuple(sizes[axis] for axis in order))
            assert np.array_equal(found.numpy(), expected.transpose(order)), sizes


@pytest.mark.parametrize("sizes", [(8, 9, 10), (33, 8, 31), (24, 30, 30)], ids=str)
@pytest.mark.parametrize("real", [True, False], ids=["real", "complex"])
def test_in_three_dimensions_a_coefficient_has_the_band_of_its_frequency(
    sizes: tuple[int, ...], real: bool, reference: Any
) -> None:
    places = list(product(*(np.fft.fftfreq(size, 1 / size) for size in sizes)))
    table = reference.bands(sizes)
    expected = np.array([table[tuple(int(abs(k)) for k in place)] for place in places]).reshape(sizes)
    found = frequency_grid.__wrapped__(sizes, real, torch.device("cpu")).band.numpy()
    assert np.array_equal(found, expected[..., : found.shape[-1]])


@pytest.mark.parametrize("sizes", [(4096,), (1000, 640), (96, 160, 96)], ids=str)
def test_frequencies_on_an_edge_of_a_larger_grid_are_below_it(sizes: tuple[int, ...], reference: Any) -> None:
    assert np.array_equal(radial_bands(sizes).numpy(), reference.bands(sizes))


@pytest.mark.parametrize(("dimensions", "count"), [(1, 16), (2, 23), (3, 28), (4, 32)])
def test_the_last_band_covers_the_corner(dimensions: int, count: int) -> None:
    assert band_edges(dimensions) == tuple(index / 32 for index in range(count + 1))
    assert band_edges(dimensions)[-2] < dimensions**0.5 / 2 <= band_edges(dimensions)[-1]
