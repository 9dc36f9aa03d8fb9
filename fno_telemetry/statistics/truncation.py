"""What a spectral convolution cuts off: the share of its input's energy outside its own modes."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from fno_telemetry.records import Value
from fno_telemetry.statistics.activation import Activation
from fno_telemetry.statistics.contract import Empty, Summary, Undefined
from fno_telemetry.statistics.frequency_grid import frequency_grid
from fno_telemetry.statistics.spectrum import energy_of, without_energy


@dataclass(frozen=True)
class TruncationState:
    """Energy of the input, the means left out, and the part of it that the modes cut off."""

    total: torch.Tensor
    cut: torch.Tensor
    dc: torch.Tensor
    fields: torch.Tensor

    def merge(self, other: "TruncationState") -> "TruncationState":
        """Return the sums over both data sets."""
        return TruncationState(
            self.total + other.total, self.cut + other.cut, self.dc + other.dc, self.fields + other.fields
        )


class Truncation:
    """Measured on what enters a spectral convolution; `modes` marks the coefficients that it keeps."""

    name = "truncation"
    keys = ("truncated_energy_fraction",)

    def measure(
        self, activation: Activation, modes: torch.Tensor | None
    ) -> TruncationState | Undefined | Empty:
        """Measure the input against a bool mask over the coefficients of its transform.

        The mask has the shape that `rfftn` (real input) or `fftn` (complex input) over space gives.
        """
        if not activation.sizes:
            return Undefined("no spatial axes are known")
        if modes is None:
            return Undefined("which modes the layer keeps could not be observed")
        if activation.count == 0:
            return Empty()
        grid = frequency_grid(activation.sizes, not activation.complex, activation.device)
        if modes.shape != grid.weight.shape:
            return Undefined("the layer's modes were observed at another resolution")
        energy = energy_of(activation)
        counted = energy.grid * grid.weight
        return TruncationState(
            total=counted.sum(),
            cut=(counted * ~modes.to(counted.device, torch.bool)).sum(),
            dc=energy.dc,
            fields=energy.fields,
        )

    def summarize(self, state: TruncationState, known: Mapping[str, Value]) -> Summary:
        """Return the share that is cut off; null where the input has no energy around its means."""
        reason = without_energy(float(state.total), float(state.dc), int(state.fields))
        if reason is not None:
            return Summary(dict.fromkeys(self.keys), dict.fromkeys(self.keys, reason))
        return Summary({"truncated_energy_fraction": min(float(state.cut) / float(state.total), 1.0)})
