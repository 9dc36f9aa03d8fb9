"""The frequencies that two grids share, in cycles per field, and how fields on both differ in them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fno_telemetry.statistics.activation import Activation
from fno_telemetry.statistics.frequency_bands import band_edges, radial_bands

_MOST_VALUES = 1 << 20
"""Values of one tensor and batch that are compared; of more, evenly spread fields are taken."""


@dataclass(frozen=True)
class Coefficients:
    """The coefficients of fields below the Nyquist limit of their grid, with the amplitude of each wave.

    `values` are (fields, *frequencies) for grids of `sizes`, in the order of torch.fft.fft; without spatial
    axes they are the values themselves and `sizes` is ().
    """

    sizes: tuple[int, ...]
    values: torch.Tensor


@dataclass
class Differences:
    """Energies summed over fields: of the difference, of the fields as they were, and on the other grid."""

    sizes: tuple[int, ...] = ()
    bands: torch.Tensor | None = None  # (3, 1 + bands), the first for the means; None without spatial axes
    sums: torch.Tensor | None = None  # (3,) around the means of fields; of all values without spatial axes
    reason: str | None = None  # why there are none

    @property
    def energy(self) -> float:
        """The energy of the fields as they were, with their means."""
        of_means = 0.0 if self.bands is None else float(self.bands[1, 0])
        return of_means + (0.0 if self.sums is None else float(self.sums[1]))

    def add(self, before: Coefficients, after: Coefficients) -> None:
        """Add what fields on one grid, and the same on another grid, have in common frequencies."""
        if len(before.sizes) != len(after.sizes) or len(before.values) != len(after.values):
            self.reason = "the tensor has other axes or channels at the other resolution"
            return
        sizes = tuple(map(min, before.sizes, after.sizes))
        if not sizes and before.values.shape != after.values.shape:
            self.reason = "the tensor has another shape, and no spatial axes are known"
            return
        one, other = (_cut(each, sizes).to(torch.complex128) for each in (before, after))
        squares = torch.stack([part.abs().square().sum(0) for part in (other - one, one, other)])
        sums = squares.flatten(1)[:, 1 if sizes else 0 :].sum(1)
        self.sums = sums if self.sums is None else self.sums + sums
        if sizes:
            found = _sum_by_band(squares, sizes)
            # Batches of other sizes have other frequencies in a band.
            self.bands = found if self.bands is None or self.sizes != sizes else self.bands + found
            self.sizes = sizes


def find_coefficients(activation: Activation) -> Coefficients:
    """Return the coefficients of a tensor's fields, or of an even share of them."""
    fields = activation.field.flatten(0, 2)
    points = max(fields[0].numel(), 1) if len(fields) else 1
    most = max(_MOST_VALUES // points, 1)
    if len(fields) > most:
        chosen = torch.arange(most, device=fields.device) * len(fields) // most
        fields = fields[chosen]
    sizes = tuple(activation.sizes)
    if not sizes:
        return Coefficients((), fields)
    space = tuple(range(1, fields.ndim))
    whole = Coefficients(sizes, torch.fft.fftn(fields, dim=space, norm="forward"))
    return Coefficients(sizes, _cut(whole, sizes))


def _cut(coefficients: Coefficients, sizes: Sequence[int]) -> torch.Tensor:
    """Return the coefficients below the Nyquist limit of a grid of these sizes, which is not finer."""
    values = coefficients.values
    for axis, size in enumerate(sizes, 1):
        highest, length = (size - 1) // 2, values.shape[axis]
        if length > 2 * highest + 1:
            low = values.narrow(axis, 0, highest + 1)
            high = values.narrow(axis, length - highest, highest)
            values = torch.cat((low, high), axis)
    return values


def _sum_by_band(squares: torch.Tensor, sizes: tuple[int, ...]) -> torch.Tensor:
    """Return rows of energies summed over radial bands, in cycles per point of the coarser grid."""
    place = radial_bands(sizes)
    for axis, size in enumerate(sizes):
        highest = (size - 1) // 2
        cycles = torch.cat((torch.arange(highest + 1), torch.arange(highest, 0, -1)))
        place = place.index_select(axis, cycles)
    place = place.flatten().to(torch.int64) + 1
    place[0] = 0  # the means
    count = len(band_edges(len(sizes)))
    sums = squares.new_zeros((len(squares), count))
    return sums.index_add_(1, place.to(squares.device), squares.flatten(1))
