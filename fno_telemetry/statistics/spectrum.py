"""Statistics of the spectrum: where over frequency the energy of the fields lies."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from fno_telemetry.records import Spectrum as SpectrumRecord
from fno_telemetry.records import Value
from fno_telemetry.statistics.activation import Activation
from fno_telemetry.statistics.contract import Empty, Summary, Undefined
from fno_telemetry.statistics.frequency_grid import (
    AXIS_EDGES,
    HIGH_CUTOFF,
    LOW_CUTOFF,
    band_edges,
    frequency_grid,
)

NO_ENERGY = 1e-12
"""Energy around the mean below this share of the total counts as none: it is rounding."""


@dataclass(frozen=True)
class FieldEnergy:
    """Energy per coefficient of the transform, summed over the fields of a tensor.

    `grid` has the shape of the coefficients, without conjugate weights; its first entry is 0, because the
    energy of the means is `dc`. Both are in units of x^2, summed over points as in Parseval's theorem.
    """

    grid: torch.Tensor
    dc: torch.Tensor
    fields: torch.Tensor
    fields_left_out: torch.Tensor


def field_energy(activation: Activation) -> FieldEnergy:
    """Transform every field over space; fields that hold a non-finite element are left out."""
    field, finite = activation.scaled, activation.finite
    transform = torch.fft.fftn if activation.complex else torch.fft.rfftn
    space = tuple(range(3, field.ndim))
    ones = [1] * len(space)
    number = math.prod(activation.sizes)
    precision = torch.promote_types(field.dtype, activation.accumulator)
    grids, energies, left_out = [], [], []
    # Buffers for all blocks: fresh memory costs more than the transform.
    rests = coefficients = field.new_empty(0)
    for samples, channels in activation.field_blocks():
        block = field[samples, channels]
        if rests.shape != block.shape:
            rests, coefficients = torch.empty_like(block), _coefficients_like(block)
        # One axis to sum over: over several at once, widening takes many times as long.
        mean = block.flatten(3).sum(3, dtype=precision).reshape(*block.shape[:3], *ones) / number
        rest = torch.sub(block, mean.to(field.dtype), out=rests)
        if finite is not None:
            whole = whole_fields(finite[samples, channels])
            rest, mean = torch.where(whole, rest, 0), torch.where(whole, mean, 0)
            left_out.append(torch.count_nonzero(~whole))
        transform(rest, dim=space, norm="ortho", out=coefficients)
        squares = torch.view_as_real(coefficients).square_()
        grids.append(squares.sum((0, 1, 2)).sum(-1).to(activation.accumulator))
        energies.append(mean.abs().square().sum())
    grid = torch.stack(grids).sum(0)
    grid.view(-1)[0] = 0  # what rounding left of the mean
    unit = activation.unit.square()
    fields = torch.tensor(math.prod(field.shape[:3]), dtype=torch.int64, device=field.device)
    lost = torch.stack(left_out).sum() if left_out else torch.zeros_like(fields)
    return FieldEnergy(
        grid=grid * unit,
        dc=torch.stack(energies).sum() * number * unit,
        fields=fields - lost,
        fields_left_out=lost,
    )


def _coefficients_like(block: torch.Tensor) -> torch.Tensor:
    """Return room for the transform of real or complex fields over all axes from the fourth on."""
    if block.is_complex():
        return torch.empty_like(block)
    shape = (*block.shape[:-1], block.shape[-1] // 2 + 1)
    return torch.empty(shape, dtype=torch.promote_types(block.dtype, torch.complex32), device=block.device)


def whole_fields(finite: torch.Tensor) -> torch.Tensor:
    """Return which fields (B, C, E, 1, ...) are finite everywhere."""
    return finite.flatten(3).all(3).reshape(*finite.shape[:3], *(1 for _ in finite.shape[3:]))


def without_energy(total: float, dc: float, fields: int) -> str | None:
    """Return why shares of the energy around the means are undefined, None when they are not."""
    if fields == 0:
        return "every field holds a non-finite element"
    if not math.isfinite(total + dc):
        return "the square leaves float64"
    if total + dc == 0:
        return "the fields are zero, or their squares leave float64"
    return "the fields are constant in space" if total <= NO_ENERGY * (total + dc) else None


@dataclass(frozen=True)
class SpectrumState:
    """Sums of energy; all of them simply add up, over resolutions too."""

    sizes: tuple[int, ...]  # the largest along each axis
    complex: bool
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

    def merge(self, other: "SpectrumState") -> "SpectrumState | Undefined":
        """Return the sums over both data sets."""
        if len(self.sizes) != len(other.sizes):
            return Undefined("the number of spatial axes changed between batches")
        return SpectrumState(
            tuple(max(pair) for pair in zip(self.sizes, other.sizes, strict=True)),
            self.complex or other.complex,
            self.dc + other.dc,
            self.total + other.total,
            self.low + other.low,
            self.high + other.high,
            self.moment + other.moment,
            self.negative + other.negative,
            self.positive + other.positive,
            self.bands + other.bands,
            self.axis_bands + other.axis_bands,
            self.fields + other.fields,
            self.fields_left_out + other.fields_left_out,
        )


class Spectrum:
    """Where the energy lies over frequency, in cycles per sample; the mean of each field stands apart [1].

    [1] Parseval's theorem: the energies sum to that of the field.
    """

    name = "spectrum"
    keys = (
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
        energy = energy_of(activation)
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

    def summarize(self, state: SpectrumState, known: Mapping[str, Value]) -> Summary:
        """Return the shares and the bands; null where no energy is left around the means."""
        total, dc = float(state.total), float(state.dc)
        whole = total + dc
        stats: dict[str, Value] = dict.fromkeys(self.keys)
        reason = without_energy(total, dc, int(state.fields))
        if reason is not None:
            constant = math.isfinite(whole) and whole > 0
            stats["dc_fraction"] = 1.0 if constant else None
            return Summary(stats, {key: reason for key in self.keys if stats[key] is None})
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


def energy_of(activation: Activation) -> FieldEnergy:
    """Return the field energy of this tensor, transformed once however many statistics ask for it."""
    found = activation.kept.get("field_energy")
    if not isinstance(found, FieldEnergy):
        found = activation.kept["field_energy"] = field_energy(activation)
    return found
