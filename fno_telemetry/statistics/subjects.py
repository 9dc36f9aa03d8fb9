"""The subjects that statistics measure, by their `of`: an activation, or one of the classes below.

| `of` | argument of `measure` | measured for; merged over |
|---|---|---|
| "tensor" | an `Activation` | each output of a module, input and output of the model; over batches |
| "operator_output" | an `Activation` | each output of a spectral module, a block or the model; over batches |
| "module_input" | an `Activation` | the first input of each call of a module; over batches |
| "spectral_input" | a `SpectralInput` | each call of a spectral module; over batches |
| "weights" | `Weights` | each module once, because all calls share them |
| "output_gradient" | an `OutputGradient` | each output, if a loss is given; over batches |
| "parameter_gradients" | `ParameterGradients` | each module once, for the mean loss over all samples |
| "branch_sum" | a `BranchSum` | each block; over batches |
| "residual_update" | a `ResidualUpdate` | each residual block; over batches |
| "block" | a `BlockCall` | each block; over batches |
| "block_spectra" | a `BlockCall` | each block, if a target is given; over batches |
| "branch_gradients" | `BranchGradients` | each block once, if a loss is given |
| "comparison" | a `Comparison` | the model, if a target is given; over batches |
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from fno_telemetry.statistics.activation import Activation
from fno_telemetry.statistics.low_frequencies import LowFrequencies
from fno_telemetry.statistics.mode_energies import find_modes, measure_energies
from fno_telemetry.statistics.own_weights import own_weights
from fno_telemetry.statistics.process_shares import is_spread


@dataclass(frozen=True, eq=False)
class SpectralInput:
    """The input of a spectral module; `modes` is a mask of the coefficients that the module keeps.

    It is None if the modes could not be detected. `halved` says whether they are those of a real inverse
    transform; None means as for the input. `removed` marks coefficients that a field has before and not
    after: one that is also in `modes` depends on the data. `transformed` holds the sizes of the forward
    transform. None and () if they are not known. `mixed` says whether the forward transform was given fields
    with an imaginary part.
    """

    activation: Activation
    modes: torch.Tensor | None
    halved: bool | None = None
    removed: torch.Tensor | None = None
    transformed: tuple[int, ...] = ()
    mixed: bool = False


@dataclass(frozen=True, eq=False)
class Weights:
    """A module; for a spectral module also the sizes of its modes, if known."""

    module: nn.Module
    is_spectral: bool = False
    modes: "ModeSizes | None" = None

    @cached_property
    def energies(self) -> tuple[tuple[torch.Tensor, torch.Tensor | None], ...]:
        """Each of the module's own weights, with its energy by mode; None where it has no known modes."""
        return tuple((weight, self._measure(weight)) for weight in own_weights(self.module))

    @cached_property
    def is_spread(self) -> bool:
        """Whether the weights are spread over processes, of which each has a share."""
        return any(map(is_spread, self.module.parameters()))

    def _measure(self, weight: torch.Tensor) -> torch.Tensor | None:
        if not self.is_spectral or self.modes is None or self.is_spread:
            return None
        axes = len(self.modes.available)
        pairs = find_modes(weight, self.modes.channels, axes)
        return None if pairs is None else measure_energies(pairs, axes)


@dataclass(frozen=True)
class ModeSizes:
    """Channels (in, out) of a spectral module, and how many frequencies its input has along each axis."""

    channels: tuple[int, int]
    available: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class ParameterGradient:
    """One trained parameter and its gradient; None if the loss does not depend on it."""

    parameter: torch.Tensor
    gradient: torch.Tensor | None


@dataclass(frozen=True, eq=False)
class ParameterGradients:
    """The trained parameters of one module; `frozen` names a parameter that requires no gradient, if any."""

    parameters: tuple[ParameterGradient, ...]
    frozen: str | None = None


@dataclass(frozen=True, eq=False)
class OutputGradient:
    """The gradient of the loss with respect to an output of this shape, for one batch of `samples` samples.

    It is None if the loss does not depend on the output. `samples` is None if the loss is that of a training
    loop, which weights its batches itself.
    """

    gradient: torch.Tensor | None
    shape: tuple[int, ...]
    samples: int | None
    device: torch.device


@dataclass(frozen=True, eq=False)
class BranchGradients:
    """The trained parameters of both branches of a block, each parameter once."""

    spectral: ParameterGradients
    local: ParameterGradients


@dataclass(frozen=True, eq=False)
class BranchSum:
    """The spectral and the local operand of a branch sum, with equal shapes."""

    spectral: Activation
    local: Activation


@dataclass(frozen=True, eq=False)
class ResidualUpdate:
    """The input of a residual block, and the sum with it."""

    before: Activation
    after: Activation


@dataclass(frozen=True, eq=False)
class BlockCall:
    """Input and output of a module that is a block; their shapes may differ."""

    before: Activation
    after: Activation


@dataclass(frozen=True, eq=False)
class Comparison:
    """An output and its target as the loss compares them: of one shape and layout, both real or complex.

    `entered` are low frequencies of the model's first input in space; None if they are not known.
    """

    output: Activation
    target: Activation
    entered: LowFrequencies | None = None
