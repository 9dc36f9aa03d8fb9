"""Statistics of the spectrum: the distribution of the energy of fields over frequency."""

import math
import operator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch

from fno_telemetry.quantities import select
from fno_telemetry.records import Spectrum as SpectrumRecord
from fno_telemetry.records import Value
from fno_telemetry.statistics.activation import Activation
from fno_telemetry.statistics.contract import (
    Empty,
    Known,
    MergedBy,
    Of,
    Summary,
    SummedState,
    Undefined,
    keys_of,
)
from fno_telemetry.statistics.field_energy import NO_ENERGY, explain_no_energy
from fno_telemetry.statistics.frequency_bands import AXIS_EDGES, band_edges
from fno_telemetry.statistics.frequency_grid import HIGH_CUTOFF, LOW_CUTOFF, frequency_grid
from fno_telemetry.statistics.sums import LEAST_SHARE


def _larger(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(max(pair) for pair in zip(first, second, strict=True))


@dataclass(frozen=True)
class SpectrumState(SummedState):
    """Sums of energy, which add up, also over different resolutions."""

    sizes: Annotated[tuple[int, ...], MergedBy(_larger, "largest")]  # the largest along each axis
    complex: Annotated[bool, MergedBy(operator.or_)]
    sums: torch.Tensor  # dc, total without it, moment (|f| times energy), then those of FrequencyGrid.places
    fields: torch.Tensor  # measured, left out, and all, of which these are a share with a light budget
    spread: (
        torch.Tensor
    )  # over fields, the sums of their energies and of the squares of these; 0 for all fields

    @property
    def dc(self) -> torch.Tensor:
        """The energy of the means."""
        return self.sums[0]

    @property
    def total(self) -> torch.Tensor:
        """The energy around the means."""
        return self.sums[1]

    @property
    def bands(self) -> torch.Tensor:
        """The energy of each radial band."""
        return self.sums[9 : 9 + len(band_edges(len(self.sizes))) - 1]

    def merge(self, other: Any) -> Any:
        """Return the sums over both data sets."""
        if len(self.sizes) != len(other.sizes):
            return Undefined("the number of spatial axes changed between batches")
        return super().merge(other)


class Spectrum:
    """Shares of energy over frequency, in cycles per grid point, separate from the mean of each field [1].

    [1] Parseval's theorem: the energies of all coefficients sum to the energy of the field.
    """

    name = "spectrum"
    of: Of = "tensor"
    needs = ()
    quantities = select(
        "dc_fraction",
        "low_frequency_fraction",
        "high_frequency_fraction",
        "spectral_centroid",
        "one_sidedness",
    )

    def measure(self, activation: Activation) -> SpectrumState | Undefined | Empty:
        """Measure the energy of every field; Undefined without spatial axes or without elements."""
        if not activation.sizes:
            return Undefined("no spatial axes are known")
        if activation.count == 0:
            return Empty()
        return _measure_on_host(activation) if activation.on_host else _measure_on_device(activation)

    def summarize(self, state: SpectrumState, known: Known) -> Summary:
        """Return the shares and the bands; null if there is no energy around the means."""
        dc, total, moment, low, _, high, negative, _, positive = state.sums[:9].tolist()
        fields, left_out, of = state.fields.tolist()
        whole = total + dc
        stats: dict[str, Value] = dict.fromkeys(keys_of(self))
        reason = explain_no_energy(total, dc, fields)
        if reason is not None:
            constant = math.isfinite(whole) and whole > 0
            stats["dc_fraction"] = 1.0 if constant else None
            return Summary(stats, {key: reason for key in keys_of(self) if stats[key] is None})
        stats["dc_fraction"] = dc / whole
        stats["low_frequency_fraction"] = min(low / total, 1.0)
        stats["high_frequency_fraction"] = min(high / total, 1.0)
        stats["spectral_centroid"] = moment / total
        reasons = {}
        if len(state.sizes) == 1 and not state.complex:
            reasons["one_sidedness"] = "a real field over one axis has only one side"
        elif positive <= NO_ENERGY * whole:
            reasons["one_sidedness"] = "no energy on the positive side"
        else:
            stats["one_sidedness"] = negative / positive
        axis_bands = state.sums[9 + len(state.bands) :].reshape(len(state.sizes), -1)
        record = SpectrumRecord(
            sizes=state.sizes,
            fields=fields,
            fields_left_out=left_out,
            share=(fields + left_out) / of,
            share_error=_find_error(state),
            low_cutoff=LOW_CUTOFF,
            high_cutoff=HIGH_CUTOFF,
            band_edges=band_edges(len(state.sizes)),
            bands=tuple((state.bands / state.bands.sum()).tolist()),
            axis_band_edges=AXIS_EDGES,
            axis_bands=tuple(tuple((row / row.sum()).tolist()) for row in axis_bands),
        )
        return Summary(stats, reasons, spectrum=record)


def _measure_on_host(activation: Activation) -> SpectrumState:
    energy = activation.host_energy
    sums = np.concatenate(((energy.dc,), energy.grid.sum_on_host(energy.energies)))
    fields = np.array((energy.fields, energy.fields_left_out, activation.number_of_fields))
    return SpectrumState(
        sizes=activation.sizes,
        complex=activation.complex,
        sums=torch.from_numpy(sums),
        fields=torch.from_numpy(fields),
        spread=_measure_spread_on_host(activation),
    )


def _measure_on_device(activation: Activation) -> SpectrumState:
    energy = activation.field_energy
    grid = frequency_grid(activation.sizes, not activation.complex, activation.device)
    flat = energy.counted.flatten()
    by_place = flat.new_zeros(grid.number_of_sums)
    by_place.index_add_(0, grid.places.flatten(), flat.repeat(len(grid.places)))
    moment = (flat * grid.radius.flatten()).sum()
    sums = torch.cat((torch.stack((energy.dc, flat.sum(), moment)), by_place))
    of = torch.full_like(energy.fields, activation.number_of_fields)
    fields = torch.stack((energy.fields, energy.fields_left_out, of))
    return SpectrumState(
        sizes=activation.sizes,
        complex=activation.complex,
        sums=sums,
        fields=fields,
        spread=_measure_spread(activation),
    )


def _measure_spread_on_host(activation: Activation) -> torch.Tensor:
    chosen = activation.transformed
    if chosen is activation or chosen.complex or chosen.finite is not None or chosen.scale is not None:
        return _measure_spread(activation)
    sums, points = chosen.row_sums, math.prod(chosen.sizes)
    energies = sums.squares - sums.total * sums.total / points
    if (energies < LEAST_SHARE * sums.squares).any():
        return _measure_spread(activation)
    return torch.from_numpy(np.array((energies.sum(), energies.dot(energies))))


def _measure_spread(activation: Activation) -> torch.Tensor:
    """Return sums over the fields of a share: of their energies around their means, and of the squares."""
    chosen = activation.transformed
    if chosen is activation:
        return torch.zeros(2, dtype=activation.accumulator, device=activation.device)
    fields = chosen.scaled.flatten(0, 2).flatten(1)
    around = fields - fields.mean(1, keepdim=True)
    energies = around.abs().square().sum(1).to(activation.accumulator) * chosen.unit.square()
    return torch.stack((energies.sum(), energies.square().sum()))


def _find_error(state: SpectrumState) -> float:
    """Return a bound of the standard error that a share of the fields adds to shares of energy.

    It is that of a ratio of two means [1], for fields that have all of their energy in the band or none.

    [1] Cochran: Sampling Techniques, chapter 6.
    """
    fields, left_out, of = state.fields.tolist()
    total, squares = map(float, state.spread.tolist())
    if fields + left_out == of or not total:
        return 0.0
    return math.sqrt((1 - (fields + left_out) / of) * squares) / total
