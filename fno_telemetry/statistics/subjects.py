"""What statistics measure, by what they are of: an activation, or one of these.

| `of` | `measure` is given | how often, and how states merge |
|---|---|---|
| "tensor" | an `Activation` | each output of a module, input and output of the model; over batches |
| "spectral_input" | a `SpectralInput` | each call of a spectral module; over batches |
| "weights" | `Weights` | each module once, since they are the same in every call |
| "output_gradient" | an `OutputGradient` | each output, where a loss is given; over batches |
| "parameter_gradients" | `ParameterGradients` | each module once, of the mean over all samples |
| "branch_sum" | a `BranchSum` | each block; over batches |
| "residual_update" | a `ResidualUpdate` | each residual block; over batches |
| "block" | a `BlockCall` | each module whose forward is a block; over batches |
| "branch_gradients" | `BranchGradients` | each block once, where a loss is given |
"""

from dataclasses import dataclass

import torch
from torch import nn

from fno_telemetry.statistics.activation import Activation


@dataclass(frozen=True, eq=False)
class SpectralInput:
    """What enters a spectral module; `modes` marks the coefficients of its transform that the module keeps.

    None where that could not be observed.
    """

    activation: Activation
    modes: torch.Tensor | None


@dataclass(frozen=True, eq=False)
class Weights:
    """A module; for a spectral one also what is known of its `modes`."""

    module: nn.Module
    is_spectral: bool = False
    modes: "ModeSizes | None" = None


@dataclass(frozen=True)
class ModeSizes:
    """Channels (in, out) of a spectral module, and how many frequencies its input has along each axis."""

    channels: tuple[int, int]
    available: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class ParameterGradient:
    """One trained parameter and its gradient; None where the loss does not depend on it."""

    parameter: torch.Tensor
    gradient: torch.Tensor | None


@dataclass(frozen=True, eq=False)
class ParameterGradients:
    """The trained parameters of one module; `frozen` names one that takes no gradient, where there is one."""

    parameters: tuple[ParameterGradient, ...]
    frozen: str | None = None


@dataclass(frozen=True, eq=False)
class OutputGradient:
    """The gradient of the loss with respect to an output of this shape, over one batch of so many samples.

    None where no gradient arrived: the loss does not depend on it.
    """

    gradient: torch.Tensor | None
    shape: tuple[int, ...]
    samples: int
    device: torch.device


@dataclass(frozen=True, eq=False)
class BranchGradients:
    """The trained parameters of both branches of a block, each parameter once."""

    spectral: ParameterGradients
    local: ParameterGradients


@dataclass(frozen=True, eq=False)
class BranchSum:
    """The spectral and the local operand where they are added, of equal shape."""

    spectral: Activation
    local: Activation


@dataclass(frozen=True, eq=False)
class ResidualUpdate:
    """The input of a residual block, and the sum that it was added to."""

    before: Activation
    after: Activation


@dataclass(frozen=True, eq=False)
class BlockCall:
    """Input and output of a module whose forward is a block; they may differ in shape."""

    before: Activation
    after: Activation
