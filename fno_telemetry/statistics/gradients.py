"""Gradients of a loss: of a module's parameters, of what it returned, and of two branches beside each other.

The loss of several batches is the mean over them, weighted by their numbers of samples.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch.nn.utils import parametrize

import torch
from fno_telemetry.records import Value
from fno_telemetry.statistics.contract import Empty, Summary, Undefined
from torch import nn

PARAMETER_KEYS = ("grad_norm", "grad_abs_mean", "grad_to_weight", "grad_nonfinite_count")
OUTPUT_KEY = "output_grad_rms"
BRANCHES_KEY = "spectral_local_gradient_ratio"


@dataclass(frozen=True)
class ParameterGradient:
    """What is known of d loss / d parameters, and the norm of those parameters."""

    elements: int
    norm: torch.Tensor
    absolute_sum: torch.Tensor
    nonfinite: torch.Tensor
    weight_norm: torch.Tensor

    def merge(self, other: "ParameterGradient") -> "ParameterGradient":
        """Return what is known of both sets of parameters together."""
        return ParameterGradient(
            self.elements + other.elements,
            torch.hypot(self.norm, other.norm),
            self.absolute_sum + other.absolute_sum,
            self.nonfinite + other.nonfinite,
            torch.hypot(self.weight_norm, other.weight_norm),
        )


@dataclass(frozen=True)
class OutputGradient:
    """The norm of d loss / d output times the number of samples; over batches the root of the square sum.

    Scaled so, samples in one batch and samples in several give the same.
    """

    elements: int
    norm: torch.Tensor
    has_samples: bool

    def merge(self, other: "OutputGradient") -> "OutputGradient | Undefined":
        """Return the state over both batches."""
        if not (self.has_samples and other.has_samples):
            return Undefined("without a sample axis, the gradients of several batches are not of one tensor")
        return OutputGradient(self.elements + other.elements, torch.hypot(self.norm, other.norm), True)


def trained_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """Yield what a module's own weights are made of: its parameters, those in a list, factors, originals."""
    lists = (nn.ParameterList, nn.ParameterDict)
    parts = [
        child
        for child in module.children()
        if isinstance(child, lists) or callable(getattr(child, "to_tensor", None))
    ]
    if parametrize.is_parametrized(module):
        parts.append(module.parametrizations)  # type: ignore[arg-type]
    found = {id(parameter): parameter for parameter in module.parameters(recurse=False)}
    for part in parts:
        found |= {id(parameter): parameter for parameter in part.parameters()}
    yield from found.values()


def parameter_gradient(parameter: torch.Tensor, gradient: torch.Tensor | None) -> ParameterGradient:
    """Measure one parameter; its gradient is None where the loss does not depend on it."""
    weight_norm = frobenius_norm(parameter)
    if gradient is None:
        zero = torch.zeros_like(weight_norm)
        return ParameterGradient(parameter.numel(), zero, zero, zero.long(), weight_norm)
    finite = torch.isfinite(gradient)
    return ParameterGradient(
        parameter.numel(),
        frobenius_norm(gradient),
        gradient.abs().sum(dtype=weight_norm.dtype),
        finite.numel() - torch.count_nonzero(finite),
        weight_norm,
    )


def output_gradient(norm: torch.Tensor, shape: tuple[int, ...], samples: int) -> OutputGradient | Empty:
    """Return the state of an output of this shape, from the norm of its gradient in so many samples."""
    if math.prod(shape) == 0:
        return Empty()
    return OutputGradient(math.prod(shape), norm * samples, bool(shape) and shape[0] == samples)


def summarize_parameters(state: ParameterGradient | Undefined) -> Summary:
    """Return the numbers of a module's own parameters."""
    if isinstance(state, Undefined):
        return Summary(dict.fromkeys(PARAMETER_KEYS), dict.fromkeys(PARAMETER_KEYS, state.reason))
    stats: dict[str, Value] = dict.fromkeys(PARAMETER_KEYS)
    stats["grad_nonfinite_count"] = int(state.nonfinite)
    if (reason := _why_no_norm(state)) is not None:
        return Summary(stats, dict.fromkeys(PARAMETER_KEYS[:3], reason))
    norm, weight_norm, mean = float(state.norm), float(state.weight_norm), float(state.absolute_sum)
    stats["grad_norm"] = norm
    reasons = {}
    if math.isfinite(mean):
        stats["grad_abs_mean"] = mean / state.elements
    else:
        reasons["grad_abs_mean"] = "the sum leaves float64"
    if not math.isfinite(weight_norm):
        reasons["grad_to_weight"] = "a parameter is not finite"
    elif weight_norm == 0:
        reasons["grad_to_weight"] = "all parameters are zero"
    else:
        stats["grad_to_weight"] = norm / weight_norm
    return Summary(stats, reasons)


def summarize_output(state: OutputGradient | Undefined | Empty, samples: int) -> Summary:
    """Return the rms of d loss / d output, where the loss is the mean over so many samples."""
    if isinstance(state, Undefined | Empty):
        return Summary({OUTPUT_KEY: None}, {OUTPUT_KEY: state.reason})
    rms = float(state.norm) / samples / math.sqrt(state.elements)
    if not math.isfinite(rms):
        return Summary({OUTPUT_KEY: None}, {OUTPUT_KEY: "the gradient is not finite"})
    return Summary({OUTPUT_KEY: rms})


def summarize_branches(
    spectral: ParameterGradient | Undefined | None, local: ParameterGradient | Undefined | None
) -> Summary:
    """Return the norm of the spectral branch's gradient over the local one's; None has no parameters."""
    norms = []
    for name, state in (("spectral", spectral), ("local", local)):
        if state is None:
            return _no_ratio(f"the {name} branch has no parameters")
        reason = state.reason if isinstance(state, Undefined) else _why_no_norm(state)
        if reason is not None or isinstance(state, Undefined):
            return _no_ratio(f"the {name} branch: {reason}")
        norms.append(float(state.norm))
    if norms[1] == 0:
        return _no_ratio("the gradient of the local branch is zero")
    return Summary({BRANCHES_KEY: norms[0] / norms[1]})


def frobenius_norm(tensor: torch.Tensor) -> torch.Tensor:
    """Return the root of the sum of |x|^2 as a tensor on the device, for values of any size."""
    real = torch.view_as_real(tensor.detach().resolve_conj()) if tensor.is_complex() else tensor.detach()
    wide = torch.float32 if real.device.type == "mps" else torch.float64
    if real.numel() == 0:
        return torch.zeros((), dtype=wide, device=real.device)
    if real.dtype != wide:
        # Float64 holds the square of everything that narrower types hold.
        norm: torch.Tensor = torch.linalg.vector_norm(real, dtype=wide)
        return norm
    largest = torch.linalg.vector_norm(real, math.inf)
    unit = torch.where((largest > 0) & torch.isfinite(largest), largest, torch.ones_like(largest))
    scaled: torch.Tensor = torch.linalg.vector_norm(real / unit) * unit
    return scaled


def _why_no_norm(state: ParameterGradient) -> str | None:
    if int(state.nonfinite):
        return f"{int(state.nonfinite)} of {state.elements} elements of the gradient are not finite"
    return None if math.isfinite(float(state.norm)) else "the norm leaves float64"


def _no_ratio(reason: str) -> Summary:
    return Summary({BRANCHES_KEY: None}, {BRANCHES_KEY: reason})
