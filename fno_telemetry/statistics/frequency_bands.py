"""Bands of frequency, in cycles per grid point: radial ones over |f|, and bands along each axis.

Band i holds edge[i] < f <= edge[i + 1]; the first one also 0.
"""

import math
from functools import lru_cache

import numpy as np
import torch

BANDS_PER_CYCLE = 32
AXIS_EDGES = tuple(index / BANDS_PER_CYCLE for index in range(BANDS_PER_CYCLE // 2 + 1))

_ROUNDING = 1e-9
"""In bands: |f| of at most 2^20 points is rounded by less, and few frequencies are as near to an edge."""


@lru_cache(maxsize=8)
def band_edges(dimensions: int) -> tuple[float, ...]:
    """Return the edges of the radial bands in this many dimensions; the last covers the corner."""
    corner = dimensions**0.5 / 2
    count = math.ceil(corner * BANDS_PER_CYCLE)
    return tuple(index / BANDS_PER_CYCLE for index in range(count + 1))


def axis_bands(frequency: torch.Tensor) -> torch.Tensor:
    """Return the band of each |f| along one axis."""
    return _enclose(frequency, len(AXIS_EDGES) - 1)


def radial_bands(sizes: tuple[int, ...]) -> torch.Tensor:
    """Return the radial band of each frequency without signs of fields of these sizes, int32 on the host.

    Along each axis there are n // 2 + 1 entries: those of 0, 1, ... cycles per n points.
    """
    # One table serves every order of the axes.
    order = sorted(range(len(sizes)), key=sizes.__getitem__)
    return _table(tuple(sorted(sizes))).permute([order.index(axis) for axis in range(len(sizes))])


@lru_cache(maxsize=32)
def _table(sizes: tuple[int, ...]) -> torch.Tensor:
    squares = torch.zeros((), dtype=torch.float64, device="cpu")
    for size in sizes:
        cycles = torch.arange(size // 2 + 1, dtype=torch.float64, device="cpu")
        squares = squares.unsqueeze(-1) + (cycles / size).square()
    radius = squares.sqrt()
    count = len(band_edges(len(sizes))) - 1
    bands = _enclose(radius, count)
    scaled = radius * BANDS_PER_CYCLE
    edge = scaled.round()
    near = (scaled - edge).abs() < _ROUNDING
    # The root of a frequency on an edge may be rounded across it. Whole numbers are not.
    multiple = math.lcm(*sizes)
    whole = np.argwhere(near.numpy()).astype(object) * np.array([multiple // size for size in sizes], object)
    edges = edge[near].to(torch.int64)
    is_above = (whole * whole).sum(1) * BANDS_PER_CYCLE**2 > (edges.numpy().astype(object) * multiple) ** 2
    below = edges - 1 + torch.from_numpy(is_above.astype(np.int64))
    bands[near] = below.clamp(0, count - 1).to(torch.int32)
    return bands


def _enclose(frequency: torch.Tensor, count: int) -> torch.Tensor:
    """Return the band of each frequency, at most the last of so many."""
    return ((frequency * BANDS_PER_CYCLE).ceil() - 1).clamp(0, count - 1).to(torch.int32)
