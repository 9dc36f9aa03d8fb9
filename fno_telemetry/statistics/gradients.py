"""Gradients of a loss: with respect to a module's parameters, its output, and the branches of a block.

The loss of several batches is their mean, weighted by the number of samples.
"""

import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Annotated, Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from fno_telemetry.quantities import select
from fno_telemetry.records import Value
from fno_telemetry.statistics import reading
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
from fno_telemetry.statistics.memory_blocks import memory_blocks
from fno_telemetry.statistics.norms import frobenius_norm
from fno_telemetry.statistics.subjects import (
    BranchGradients,
    OutputGradient,
    ParameterGradient,
    ParameterGradients,
)


@dataclass(frozen=True)
class ParameterState(SummedState):
    """Norms and counts of d loss / d parameters, and the norm of the parameters."""

    elements: int
    norm: Annotated[torch.Tensor, MergedBy(torch.hypot)]
    absolute_sum: torch.Tensor
    nonfinite: torch.Tensor
    weight_norm: Annotated[torch.Tensor, MergedBy(torch.hypot)]


class ParameterGradientNorms:
    """The norm of the gradient of a module's own weights, absolute and relative to the weights."""

    name = "parameter_gradients"
    of: Of = "parameter_gradients"
    needs = ()
    quantities = select("grad_norm", "grad_abs_mean", "grad_to_weight", "grad_nonfinite_count")

    def measure(self, subject: ParameterGradients) -> ParameterState | Undefined | None:
        """Measure all parameters together; None without parameters, Undefined if one is frozen."""
        if subject.frozen is not None:
            return Undefined(f"the parameter {subject.frozen!r} is frozen: its requires_grad is False")
        return _measure_all(subject.parameters)

    def summarize(self, state: ParameterState, known: Known) -> Summary:
        """Return the norms; null if any element is not finite."""
        stats: dict[str, Value] = dict.fromkeys(keys_of(self))
        stats["grad_nonfinite_count"] = int(state.nonfinite)
        if (reason := _explain_no_norm(state)) is not None:
            return Summary(stats, dict.fromkeys(keys_of(self)[:3], reason))
        norm, weight_norm, mean = float(state.norm), float(state.weight_norm), float(state.absolute_sum)
        stats["grad_norm"] = norm
        reasons = {}
        if math.isfinite(mean):
            stats["grad_abs_mean"] = mean / state.elements
        else:
            reasons["grad_abs_mean"] = "the sum overflows float64"
        if not math.isfinite(weight_norm):
            reasons["grad_to_weight"] = "a parameter is not finite"
        elif weight_norm == 0:
            reasons["grad_to_weight"] = "all parameters are zero"
        else:
            stats["grad_to_weight"] = norm / weight_norm
        return Summary(stats, reasons)


@dataclass(frozen=True)
class OutputState(SummedState):
    """The norm of d loss / d output times the number of samples; over batches the root of the sum of squares.

    With this factor, the result does not depend on how samples are split into batches. It is 1 if the loss is
    no mean over samples of its own.
    """

    elements: int
    norm: Annotated[torch.Tensor, MergedBy(torch.hypot)]
    has_samples: Annotated[bool, MergedBy(operator.and_)]
    is_mean: Annotated[bool, MergedBy(operator.and_)] = True

    @property
    def why_alone(self) -> str | None:
        """Why it cannot be merged with another one; None if it can."""
        if self.has_samples:
            return None
        return "without a sample axis, gradients of several batches cannot be combined"

    def merge(self, other: Any) -> Any:
        """Return the state over both batches."""
        if (reason := self.why_alone or other.why_alone) is not None:
            return Undefined(reason)
        return super().merge(other)


class OutputGradientSize:
    """The rms of the gradient of a module's output."""

    name = "output_gradients"
    of: Of = "output_gradient"
    needs = ()
    quantities = select("output_grad_rms")

    def measure(self, subject: OutputGradient) -> OutputState | Empty:
        """Measure the gradient of one output for one batch."""
        if math.prod(subject.shape) == 0:
            return Empty()
        norm = torch.zeros((), device=subject.device)
        if subject.gradient is not None:
            norm = frobenius_norm(subject.gradient)
        if subject.samples is None:
            return OutputState(math.prod(subject.shape), norm, has_samples=True, is_mean=False)
        has_samples = bool(subject.shape) and subject.shape[0] == subject.samples
        return OutputState(math.prod(subject.shape), norm * subject.samples, has_samples)

    def summarize(self, state: OutputState, known: Known) -> Summary:
        """Return the rms of d loss / d output; the loss is the mean over all samples, or that of a loop.

        That of a loop in several processes is the mean of theirs, of which DDP and FSDP have the gradients.
        """
        parts = known.samples if state.is_mean else known.processes
        rms = float(state.norm) / parts / math.sqrt(state.elements)
        if not math.isfinite(rms):
            return Summary(dict.fromkeys(keys_of(self)), {"output_grad_rms": "the gradient is not finite"})
        return Summary({"output_grad_rms": rms})


@dataclass(frozen=True)
class BranchGradientState(SummedState):
    """The gradient states of both branches; None for a branch without parameters."""

    spectral: Annotated[ParameterState | Undefined | None, MergedBy(merge_states, "state")]
    local: Annotated[ParameterState | Undefined | None, MergedBy(merge_states, "state")]


class BranchGradientRatio:
    """The ratio of the gradient norms of the two branches of a block."""

    name = "branch_gradients"
    of: Of = "branch_gradients"
    needs = ()
    quantities = select("spectral_local_gradient_ratio")

    def measure(self, subject: BranchGradients) -> BranchGradientState:
        """Measure both branches, each with all of its parameters."""
        norms = ParameterGradientNorms()
        return BranchGradientState(norms.measure(subject.spectral), norms.measure(subject.local))

    def summarize(self, state: BranchGradientState, known: Known) -> Summary:
        """Return the norm of the spectral branch's gradient over the local one's."""
        norms = []
        for name, branch in (("spectral", state.spectral), ("local", state.local)):
            if branch is None:
                return self._no_ratio(f"the {name} branch has no parameters")
            reason = branch.reason if isinstance(branch, Undefined) else _explain_no_norm(branch)
            if reason is not None or isinstance(branch, Undefined):
                return self._no_ratio(f"the {name} branch: {reason}")
            norms.append(float(branch.norm))
        if norms[1] == 0:
            return self._no_ratio("the gradient of the local branch is zero")
        return Summary({"spectral_local_gradient_ratio": norms[0] / norms[1]})

    def _no_ratio(self, reason: str) -> Summary:
        return Summary(dict.fromkeys(keys_of(self)), dict.fromkeys(keys_of(self), reason))


def trained_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the parameters of a module's own weights, also in lists, factorised or parametrized."""
    lists = (nn.ParameterList, nn.ParameterDict)
    parts = [
        child
        for child in module.children()
        if isinstance(child, lists) or callable(getattr(child, "to_tensor", None))
    ]
    if parametrize.is_parametrized(module):
        parts.append(module.parametrizations)  # type: ignore[arg-type]
    parameters = {id(parameter): parameter for parameter in module.parameters(recurse=False)}
    for part in parts:
        parameters |= {id(parameter): parameter for parameter in part.parameters()}
    yield from parameters.values()


def _measure_all(parameters: tuple[ParameterGradient, ...]) -> ParameterState | None:
    states = [_measure(each.parameter, each.gradient) for each in parameters]
    return reduce(ParameterState.merge, states) if states else None


def _measure(parameter: torch.Tensor, gradient: torch.Tensor | None) -> ParameterState:
    weight_norm = frobenius_norm(parameter)
    if gradient is None:
        zero = torch.zeros_like(weight_norm)
        return ParameterState(parameter.numel(), zero, zero, zero.long(), weight_norm)
    norm = frobenius_norm(gradient)
    blocks = list(memory_blocks(gradient))
    absolute_sums = [block.abs().sum(dtype=weight_norm.dtype) for block in blocks]
    if reading.is_free(norm) and math.isfinite(float(norm)):
        # So is every element.
        finite = [torch.tensor(gradient.numel())]
    else:
        finite = [torch.count_nonzero(torch.isfinite(block)) for block in blocks]
    return ParameterState(
        parameter.numel(),
        norm,
        torch.stack(absolute_sums).sum(),
        gradient.numel() - torch.stack(finite).sum(),
        weight_norm,
    )


def _explain_no_norm(state: ParameterState) -> str | None:
    if int(state.nonfinite):
        return f"{int(state.nonfinite)} of {state.elements} elements of the gradient are not finite"
    return None if math.isfinite(float(state.norm)) else "the norm overflows float64"
