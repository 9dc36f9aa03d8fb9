"""Statistics of the spectrum: the distribution of the energy of fields over frequency."""

import math
import operator
from dataclasses import dataclass
from typing import Annotated, Any

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
from fno_telemetry.statistics.frequency_grid import (
    AXIS_EDGES,
    HIGH_CUTOFF,
    LOW_CUTOFF,
    band_edges,
    frequency_grid,
)


def _larger(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(max(pair) for pair in zip(first, second, strict=True))


@dataclass(frozen=True)
class SpectrumState(SummedState):
    """Sums of energy, which add up, also over different resolutions."""

    sizes: Annotated[tuple[int, ...], MergedBy(_larger)]  # the largest along each axis
    complex: Annotated[bool, MergedBy(operator.or_)]
    dc: torch.Tensor
    total: torch.Tensor  # without DC
    low: torch.Tensor
    high: torch.Tensor
    moment: torch.Tensor  # sum of |f| times energy
    negative: torch.Tensor  # energy at f_first < 0
    positive: torch.Tensor
    bands: torch.Tensor
    axis_bands: torch.Tensor  # (axes, bands)
    fields: torch.Tensor
    fields_left_out: torch.Tensor

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
        energy = activation.field_energy
        grid = frequency_grid(activation.sizes, not activation.complex, activation.device)
        counted = energy.grid * grid.weight
        flat = counted.flatten()
        bands = torch.zeros(len(grid.band_edges) - 1, dtype=flat.dtype, device=flat.device)
        axes = []
        for axis, place in enumerate(grid.axis_band):
            others = [a for a in range(counted.ndim) if a != axis]
            along = counted.sum(others) if others else counted
            row = torch.zeros(len(AXIS_EDGES) - 1, dtype=flat.dtype, device=flat.device)
            axes.append(row.index_add_(0, place, along))
        return SpectrumState(
            sizes=activation.sizes,
            complex=activation.complex,
            dc=energy.dc,
            total=flat.sum(),
            low=(counted * grid.low).sum(),
            high=(counted * grid.high).sum(),
            moment=(counted * grid.radius).sum(),
            negative=(counted * (grid.side < 0)).sum(),
            positive=(counted * (grid.side > 0)).sum(),
            bands=bands.index_add_(0, grid.band.flatten(), flat),
            axis_bands=torch.stack(axes),
            fields=energy.fields,
            fields_left_out=energy.fields_left_out,
        )

    def summarize(self, state: SpectrumState, known: Known) -> Summary:
        """Return the shares and the bands; null if there is no energy around the means."""
        total, dc = float(state.total), float(state.dc)
        whole = total + dc
        stats: dict[str, Value] = dict.fromkeys(keys_of(self))
        reason = explain_no_energy(total, dc, int(state.fields))
        if reason is not None:
            constant = math.isfinite(whole) and whole > 0
            stats["dc_fraction"] = 1.0 if constant else None
            return Summary(stats, {key: reason for key in keys_of(self) if stats[key] is None})
        stats["dc_fraction"] = dc / whole
        stats["low_frequency_fraction"] = min(float(state.low) / total, 1.0)
        stats["high_frequency_fraction"] = min(float(state.high) / total, 1.0)
        stats["spectral_centroid"] = float(state.moment) / total
        reasons = {}
        if len(state.sizes) == 1 and not state.complex:
            reasons["one_sidedness"] = "a real field over one axis has only one side"
        elif float(state.positive) <= NO_ENERGY * whole:
            reasons["one_sidedness"] = "no energy on the positive side"
        else:
            stats["one_sidedness"] = float(state.negative) / float(state.positive)
        record = SpectrumRecord(
            sizes=state.sizes,
            fields=int(state.fields),
            fields_left_out=int(state.fields_left_out),
            low_cutoff=LOW_CUTOFF,
            high_cutoff=HIGH_CUTOFF,
            band_edges=band_edges(len(state.sizes)),
            bands=tuple((state.bands / state.bands.sum()).tolist()),
            axis_band_edges=AXIS_EDGES,
            axis_bands=tuple(tuple((row / row.sum()).tolist()) for row in state.axis_bands),
        )
        return Summary(stats, reasons, spectrum=record)
