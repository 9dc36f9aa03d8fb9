"""How the output of a model compares with its target, over all elements."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch

from fno_telemetry.quantities import select
from fno_telemetry.records import Value
from fno_telemetry.statistics.contract import MergedBy, Summary, SummedState, Undefined
from fno_telemetry.statistics.memory_blocks import memory_blocks
from fno_telemetry.statistics.norms import frobenius_norm

ACCURACY = select("relative_l2", "output_to_target_rms")


@dataclass(frozen=True)
class AccuracyState(SummedState):
    """The roots of sums of |x|^2 over all elements."""

    error: Annotated[torch.Tensor, MergedBy(torch.hypot)]
    output: Annotated[torch.Tensor, MergedBy(torch.hypot)]
    target: Annotated[torch.Tensor, MergedBy(torch.hypot)]


def measure_accuracy(output: torch.Tensor, target: torch.Tensor) -> AccuracyState | Undefined:
    """Return the state of an output and its target, of the same shape; Undefined for unequal ones."""
    if output.shape != target.shape:
        shapes = f"{list(output.shape)} and the target {list(target.shape)}"
        return Undefined(f"the output has the shape {shapes}; give `step` what the loss compares")
    if output.is_complex() != target.is_complex():
        kinds = ("complex", "real") if output.is_complex() else ("real", "complex")
        return Undefined(
            f"the output is {kinds[0]} and the target {kinds[1]}; give `step` what the loss compares"
        )
    if not output.numel():
        return Undefined("the output has no elements")
    output, target = output.detach(), target.detach().to(output.device)
    return AccuracyState(
        error=_norm_of_difference(output, target),
        output=frobenius_norm(output),
        target=frobenius_norm(target),
    )


def summarize_accuracy(state: AccuracyState | Undefined) -> Summary:
    """Return ‖output - target‖ / ‖target‖, and the rms of the output over that of the target."""
    names = [quantity.name for quantity in ACCURACY]
    if isinstance(state, Undefined):
        return Summary(dict.fromkeys(names), dict.fromkeys(names, state.reason))
    error, output, target = float(state.error), float(state.output), float(state.target)
    reason = None
    if not all(map(math.isfinite, (error, output, target))):
        reason = "the output or the target is not finite"
    elif target == 0:
        reason = "the target is zero"
    if reason is not None:
        return Summary(dict.fromkeys(names), dict.fromkeys(names, reason))
    stats: dict[str, Value] = {"relative_l2": error / target, "output_to_target_rms": output / target}
    return Summary(stats)


def _norm_of_difference(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return ‖output - target‖, from differences that are taken in float64 block by block."""
    wide = torch.promote_types(output.dtype, target.dtype)
    if output.device.type != "mps":
        wide = torch.promote_types(wide, torch.float64)
    if not (output.is_contiguous() and target.is_contiguous()):
        return frobenius_norm(output.to(wide) - target.to(wide))
    pairs = zip(memory_blocks(output.view(-1)), memory_blocks(target.view(-1)), strict=True)
    return frobenius_norm(
        torch.stack([frobenius_norm(one.to(wide) - other.to(wide)) for one, other in pairs])
    )
