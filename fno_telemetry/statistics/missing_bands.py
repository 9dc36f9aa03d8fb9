"""Where a network loses a band of its target: the share of a block's input and output in missing bands.

Frequencies are compared in cycles per field, because a block may work at another resolution than the target.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch

from fno_telemetry.quantities import select
from fno_telemetry.records import BandAccuracy, Value
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
    merge_states,
)
from fno_telemetry.statistics.field_energy import explain_no_energy
from fno_telemetry.statistics.frequency_bands import radial_bands
from fno_telemetry.statistics.subjects import BlockCall


@dataclass(frozen=True)
class FieldSpectrum(SummedState):
    """The energy of fields by frequency without signs, as in `radial_bands`, and that of their means."""

    energies: torch.Tensor
    dc: torch.Tensor
    fields: torch.Tensor
    sizes: Annotated[tuple[int, ...], MergedBy(lambda first, second: first, "same")]

    def merge(self, other: Any) -> Any:
        """Return the sums over both data sets; Undefined for fields of different sizes."""
        if self.sizes != other.sizes:
            return Undefined("the size of the fields changed between batches")
        return super().merge(other)


@dataclass(frozen=True)
class BlockSpectra(SummedState):
    """The spectra of a block's input and output, or why one is not known."""

    memory_of: ClassVar[str] = "spectra"

    before: Annotated[FieldSpectrum | Undefined | Empty, MergedBy(merge_states, "state")]
    after: Annotated[FieldSpectrum | Undefined | Empty, MergedBy(merge_states, "state")]

    @property
    def memory_bytes(self) -> int:
        """The memory that the state uses during the capture."""
        spectra = (side for side in (self.before, self.after) if isinstance(side, FieldSpectrum))
        return sum(side.energies.nbytes for side in spectra)


class MissingBands:
    """The share of a block's energy in the bands of the target that the output of the model misses."""

    name = "missing_bands"
    of: Of = "block_spectra"
    needs = ()
    quantities = select("missing_band_in", "missing_band_out")

    def measure(self, subject: BlockCall) -> BlockSpectra:
        """Measure the spectra of a block's input and output, which may differ in size."""
        return BlockSpectra(_measure(subject.before), _measure(subject.after))

    def summarize(self, state: BlockSpectra, known: Known) -> Summary:
        """Return the shares; null if the output misses no band, or if it is not known whether it does."""
        bands = known.bands
        found: dict[str, float | str] = {}
        for name, side in zip(keys_of(self), (state.before, state.after), strict=True):
            if not isinstance(bands, BandAccuracy):
                found[name] = bands or "no target is known"
            elif not bands.missing:
                found[name] = "the output misses no band of the target"
            elif isinstance(side, Undefined | Empty):
                found[name] = side.reason
            else:
                found[name] = _find_share(side, bands)
        stats: dict[str, Value] = {
            name: None if isinstance(value, str) else value for name, value in found.items()
        }
        return Summary(stats, {name: value for name, value in found.items() if isinstance(value, str)})


def _measure(activation: Activation) -> FieldSpectrum | Undefined | Empty:
    if not activation.sizes:
        return Undefined("no spatial axes are known")
    if activation.count == 0:
        return Empty()
    if activation.on_host:
        found = activation.host_energy
        counted = torch.from_numpy(found.energies * found.grid.host_weight).reshape(found.grid.weight.shape)
        dc, fields = (torch.from_numpy(np.array(one)) for one in (found.dc, found.fields))
    else:
        energy = activation.field_energy
        counted, dc, fields = energy.counted, energy.dc, energy.fields
    return FieldSpectrum(_fold(counted, activation.sizes), dc, fields, activation.sizes)


def _fold(energies: torch.Tensor, sizes: tuple[int, ...]) -> torch.Tensor:
    """Return energies of all coefficients with those of -f added to those of f, along every axis."""
    for axis, size in enumerate(sizes):
        half = size // 2 + 1
        negative = energies.shape[axis] - half
        folded = energies.narrow(axis, 0, half).clone()
        if negative > 0:
            folded.narrow(axis, 1, negative).add_(energies.narrow(axis, half, negative).flip(axis))
        energies = folded
    return energies


def _find_share(spectrum: FieldSpectrum, bands: BandAccuracy) -> float | str:
    """Return the share of the energy around the means that is in the missing bands, or why there is none."""
    if len(spectrum.sizes) != len(bands.sizes):
        return "the block has another number of spatial axes than the target"
    total = float(spectrum.energies.sum())
    reason = explain_no_energy(total, float(spectrum.dc), int(spectrum.fields))
    if reason is not None:
        return reason
    is_missing = torch.from_numpy(np.isin(radial_bands(bands.sizes).numpy(), bands.missing))
    # Frequencies that only one of the two has are in no band.
    both = tuple(slice(min(pair)) for pair in zip(is_missing.shape, spectrum.energies.shape, strict=True))
    return min(float(spectrum.energies[both][is_missing[both]].sum()) / total, 1.0)
