"""The frequencies and weights of the coefficients of a discrete Fourier transform."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch

from fno_telemetry.statistics.frequency_bands import AXIS_EDGES, axis_bands, band_edges, radial_bands
from fno_telemetry.statistics.kernels import Floats

LOW_CUTOFF = 1 / 8  # cycles per grid point; 1/2 is Nyquist
HIGH_CUTOFF = 1 / 4
_FEW = 1 << 9  # coefficients


@dataclass(frozen=True)
class FrequencyGrid:
    """The coefficients of `rfftn` (real fields) or `fftn` (complex ones) over axes of these sizes.

    Tensors have the shape of the coefficients. `weight` is 2 for a coefficient that also represents its
    complex conjugate, which `rfftn` omits; the weights sum to the number of points.
    """

    sizes: tuple[int, ...]
    weight: torch.Tensor  # 1 or 2
    radius: torch.Tensor  # Euclidean |f|
    low: torch.Tensor  # bool: max |f_i| <= LOW_CUTOFF
    high: torch.Tensor  # bool: max |f_i| > HIGH_CUTOFF
    side: torch.Tensor  # -1, 0, +1: sign of the first axis for one-sidedness, 0 if not counted
    band: torch.Tensor  # radial band
    axis_band: tuple[torch.Tensor, ...]  # per axis: band along that axis, one entry per coefficient row
    places: torch.Tensor  # int64 (3 + axes, coefficients): the sums to which each coefficient adds, see below

    # Sums are of coefficients low, between, high; on the negative side, on none, on the positive one; in each
    # radial band; and in each band along the first axis, then the others.

    @cached_property
    def number_of_sums(self) -> int:
        """The number of sums by `places`."""
        return 6 + len(self.band_edges) - 1 + len(self.sizes) * (len(AXIS_EDGES) - 1)

    @cached_property
    def host_weight(self) -> Floats:
        """`weight` in one dimension, for a grid on the host."""
        return self.weight.numpy().astype(np.float64).reshape(-1)

    def sum_on_host(self, energies: Floats) -> Floats:
        """Return the sum of energies of all coefficients, that of energies times |f|, and those by `places`.

        The energies are in one dimension and without weights.
        """
        if energies.size <= _FEW:
            # Energies may have overflown, and 0 times infinity is invalid.
            with np.errstate(invalid="ignore"):
                sums: Floats = self._matrix.dot(energies)
            return sums
        counted = energies * self.host_weight
        places = self.places.numpy()
        by_place = np.bincount(places.reshape(-1), np.tile(counted, len(places)), self.number_of_sums)
        moment = counted.dot(self.radius.numpy().reshape(-1))
        return np.concatenate(((np.add.reduce(counted), moment), by_place))

    @cached_property
    def _matrix(self) -> Floats:
        """All of these sums as one product: of a small grid, each step costs more than its sums."""
        places = self.places.numpy()
        matrix = np.zeros((2 + self.number_of_sums, places.shape[1]))
        matrix[0] = 1
        matrix[1] = self.radius.numpy().reshape(-1)
        for row in places:
            matrix[2 + row, np.arange(row.size)] = 1
        return matrix * self.host_weight

    @property
    def band_edges(self) -> tuple[float, ...]:
        """Edges of the radial bands, up to the corner of the spectrum."""
        return band_edges(len(self.sizes))


@lru_cache(maxsize=32)
def frequency_grid(sizes: tuple[int, ...], real: bool, device: torch.device) -> FrequencyGrid:
    """Return the grid for fields of these sizes (at least one axis, each with at least one point)."""
    lengths = [*sizes[:-1], sizes[-1] // 2 + 1 if real else sizes[-1]]
    shape = tuple(lengths)
    axes = []  # signed frequency along each axis, shaped to broadcast
    for axis, (size, length) in enumerate(zip(sizes, lengths, strict=True)):
        index = torch.arange(length, dtype=torch.float64, device="cpu")
        signed = torch.where(index > size // 2, index - size, index)  # Nyquist is counted as positive
        axes.append((signed / size).reshape([length if a == axis else 1 for a in range(len(sizes))]))
    magnitude = [axis.abs() for axis in axes]
    everywhere = torch.stack([axis.expand(shape) for axis in magnitude])
    widest = everywhere.amax(0)
    radius = everywhere.square().sum(0).sqrt()
    weight = torch.ones(shape, dtype=torch.int8, device="cpu")
    if real:
        weight = weight * torch.where((axes[-1] == 0) | (axes[-1] == 0.5), 1, 2).to(torch.int8)
    low, high = widest <= LOW_CUTOFF, widest > HIGH_CUTOFF
    side = _side(axes, shape, real)
    radial = len(band_edges(len(sizes))) - 1
    along = len(AXIS_EDGES) - 1
    band = radial_bands(sizes)
    for axis, (size, length) in enumerate(zip(sizes, lengths, strict=True)):
        cycles = torch.arange(length, device="cpu")
        band = band.index_select(axis, torch.minimum(cycles, size - cycles))
    axis_band = [axis_bands(axis) for axis in magnitude]
    places = [torch.where(low, 0, torch.where(high, 2, 1)), 4 + side.long(), 6 + band]
    places += [6 + radial + axis * along + place.expand(shape) for axis, place in enumerate(axis_band)]
    return FrequencyGrid(
        sizes=sizes,
        weight=weight.to(device),
        radius=radius.to(device, torch.float32 if device.type == "mps" else torch.float64),
        low=low.to(device),
        high=high.to(device),
        side=side.to(device, torch.int8),
        band=band.to(device),
        axis_band=tuple(place.flatten().to(device) for place in axis_band),
        places=torch.stack([place.to(torch.int64).flatten() for place in places]).to(device),
    )


def _side(axes: list[torch.Tensor], shape: tuple[int, ...], real: bool) -> torch.Tensor:
    first, last = axes[0], axes[-1]
    side = torch.sign(first) * (first.abs() < 0.5)
    if real:
        # The columns at zero and Nyquist hold both signs for every real field.
        side = side * ((last > 0) & (last < 0.5)) if len(axes) > 1 else torch.zeros_like(side)
    return side.expand(shape)
