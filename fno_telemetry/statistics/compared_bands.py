"""The energy of an output, of its target and of their difference over radial bands of frequency."""

import math
import operator
from dataclasses import dataclass
from typing import Annotated, Any

import torch

from fno_telemetry.records import LEAST_RATIO, BandAccuracy
from fno_telemetry.statistics.contract import MergedBy, SummedState, Undefined
from fno_telemetry.statistics.field_energy import NO_ENERGY
from fno_telemetry.statistics.frequency_bands import band_edges
from fno_telemetry.statistics.frequency_grid import frequency_grid


def _larger(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(map(max, first, second))


@dataclass(frozen=True)
class BandState(SummedState):
    """Sums over samples, channels and the frequencies of a band, also over different resolutions.

    `sums` has a row for each of |y|^2, |z|^2, |z - y|^2 and Re(conj(y) z), where y and z are the coefficients
    of target and output; the first column is the mean of each field, the others are the radial bands.
    """

    sizes: Annotated[tuple[int, ...], MergedBy(_larger, "largest")]  # the largest along each axis
    complex: Annotated[bool, MergedBy(operator.or_)]
    sums: torch.Tensor

    def merge(self, other: Any) -> Any:
        """Return the sums over both data sets."""
        if len(self.sizes) != len(other.sizes):
            return Undefined("the number of spatial axes changed between batches")
        return super().merge(other)


class BandSums:
    """Adds up blocks of whole fields, given as (samples, channels, extra, *space) in the widest precision."""

    def __init__(self, sizes: tuple[int, ...], real: bool, like: torch.Tensor) -> None:
        grid = frequency_grid(sizes, real, like.device)
        self._transform = torch.fft.rfftn if real else torch.fft.fftn
        self._space = tuple(range(-len(sizes), 0))
        self._weight = grid.weight.flatten()
        self._place = grid.band.flatten() + 1
        # The mean of a field is its coefficient at zero.
        self._place[0] = 0
        self._count = 1 + len(grid.band_edges) - 1
        self._energies = like.new_zeros((4, self._weight.numel()))

    def add(self, output: torch.Tensor, target: torch.Tensor) -> None:
        """Add fields of an output and of its target."""
        z, y = (self._transform(side, dim=self._space, norm="ortho") for side in (output, target))
        pairs = ((y, y), (z, z), (z - y, z - y), (y, z))
        for row, (one, other) in zip(self._energies, pairs, strict=True):
            products = torch.view_as_real(one).mul(torch.view_as_real(other)).sum(-1)
            row += products.reshape(-1, row.numel()).sum(0)

    def by_band(self) -> torch.Tensor:
        """Return the sums of `BandState`."""
        sums = self._energies.new_zeros((4, self._count))
        return sums.index_add_(1, self._place, self._energies * self._weight)


def describe_bands(state: BandState | Undefined) -> BandAccuracy | str:
    """Return the energies of each band and their ratios, or why they are undefined."""
    if isinstance(state, Undefined):
        return state.reason
    if not torch.isfinite(state.sums).all():
        return "the squares overflow float64"
    return _compare(state)


def name_resolution(bands: BandAccuracy) -> float | str:
    """Return the effective resolution, or why it is undefined."""
    resolution = _find_resolution(bands)
    return "the target is constant in space" if resolution is None else resolution


def explain_undefined(bands: BandAccuracy) -> dict[str, str]:
    """Return the reasons for bands in which a ratio is None, by its name."""
    no_target = "the target has no energy in a band that is null"
    reasons = {
        "band_error": no_target,
        "spectrum_ratio": no_target,
        "band_coherence": "the output or the target has no energy in a band that is null",
    }
    return {name: reason for name, reason in reasons.items() if None in getattr(bands, name)}


def _compare(state: BandState) -> BandAccuracy:
    """Return the energies of each band and their ratios; a band without energy has none."""
    target, output, error, product = state.sums.tolist()
    least, least_of_output = NO_ENERGY * sum(target), NO_ENERGY * sum(output)
    band_error: list[float | None] = []
    ratio: list[float | None] = []
    coherence: list[float | None] = []
    for y, z, e, yz in zip(target, output, error, product, strict=True):
        has_energy = y > least
        band_error.append(math.sqrt(e / y) if has_energy else None)
        ratio.append(z / y if has_energy else None)
        both = has_energy and z > least_of_output
        coherence.append(max(-1.0, min(yz / (math.sqrt(y) * math.sqrt(z)), 1.0)) if both else None)
    return BandAccuracy(
        sizes=state.sizes,
        band_edges=band_edges(len(state.sizes)),
        target=tuple(target),
        output=tuple(output),
        error=tuple(error),
        band_error=tuple(band_error),
        spectrum_ratio=tuple(ratio),
        band_coherence=tuple(coherence),
    )


def _find_resolution(bands: BandAccuracy) -> float | None:
    """Return the frequency from which on the output has less than half of the target's energy in each band.

    It is the highest edge if there is none, and None if the target has energy in no radial band.
    """
    known = [
        (edge, ratio)
        for edge, ratio in zip(bands.band_edges, bands.spectrum_ratio[1:], strict=False)
        if ratio is not None
    ]
    if not known:
        return None
    resolution = bands.band_edges[-1]
    for edge, ratio in reversed(known):
        if ratio >= LEAST_RATIO:
            break
        resolution = edge
    return resolution
