"""The share of a spectral convolution's input energy that lies outside its modes."""

from dataclasses import dataclass

import torch

from fno_telemetry.quantities import select
from fno_telemetry.statistics.contract import Empty, Known, Of, Summary, SummedState, Undefined, keys_of
from fno_telemetry.statistics.field_energy import explain_no_energy
from fno_telemetry.statistics.frequency_grid import frequency_grid
from fno_telemetry.statistics.subjects import SpectralInput


@dataclass(frozen=True)
class TruncationState(SummedState):
    """Energy of the input without its means, and the part of it outside the modes."""

    total: torch.Tensor
    cut: torch.Tensor
    dc: torch.Tensor
    fields: torch.Tensor


class Truncation:
    """The energy of a spectral convolution's input outside the modes that it keeps."""

    name = "truncation"
    of: Of = "spectral_input"
    needs = ()
    quantities = select("truncated_energy_fraction")

    def measure(self, subject: SpectralInput) -> TruncationState | Undefined | Empty:
        """Measure the input with a bool mask over the coefficients of its transform.

        The mask has the shape of `rfftn` (real input) or `fftn` (complex input) over space.
        """
        activation, modes = subject.activation, subject.modes
        if not activation.sizes:
            return Undefined("no spatial axes are known")
        if modes is None:
            return Undefined("the modes that the layer keeps could not be detected")
        if activation.count == 0:
            return Empty()
        grid = frequency_grid(activation.sizes, not activation.complex, activation.device)
        if modes.shape != grid.weight.shape:
            return Undefined("the layer's modes were detected at another resolution")
        energy = activation.field_energy
        counted = energy.grid * grid.weight
        return TruncationState(
            total=counted.sum(),
            cut=(counted * ~modes.to(counted.device, torch.bool)).sum(),
            dc=energy.dc,
            fields=energy.fields,
        )

    def summarize(self, state: TruncationState, known: Known) -> Summary:
        """Return the share that is cut off; null if the input has no energy around its means."""
        reason = explain_no_energy(float(state.total), float(state.dc), int(state.fields))
        if reason is not None:
            return Summary(dict.fromkeys(keys_of(self)), dict.fromkeys(keys_of(self), reason))
        return Summary({"truncated_energy_fraction": min(float(state.cut) / float(state.total), 1.0)})
