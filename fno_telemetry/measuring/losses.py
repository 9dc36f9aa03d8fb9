"""Evaluates, checks and differentiates a user's loss, with one-line errors."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fno_telemetry.errors import ModelError, OptionError, TelemetryError
from fno_telemetry.isolation.backward_hooks import without_tensor_hooks
from fno_telemetry.tracing.nested_tensors import tensors_in
from fno_telemetry.wording import describe_error

Loss = Callable[[Any, Any], torch.Tensor]
"""`loss(output, batch)` returns a scalar; with several batches it should be the mean over samples."""

_EXPECTED = "expected a scalar tensor, as returned by torch.nn.functional.mse_loss"

_SHARDING = ("torch.distributed.fsdp", "torch.distributed.tensor")


def require_gradients(model: nn.Module) -> None:
    """Raise ModelError, with advice, for a model whose parameters cannot get gradients."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_inference():
            raise ModelError(
                f"{name!r} was made in inference mode, so it has no gradient; make the model outside "
                "torch.inference_mode(), or leave out the loss"
            )
    classes = {base for module in model.modules() for base in type(module).__mro__}
    classes |= {type(parameter) for parameter in model.parameters()}
    # The forward uses gathered copies; only a full backward returns their gradients.
    if any(cls.__module__.startswith(_SHARDING) for cls in classes):
        raise ModelError(
            "the parameters are sharded, so gradients cannot be computed here; capture the model before "
            "it is sharded, or from a checkpoint, or leave out the loss"
        )


def evaluate(loss: Loss, output: Any, batch: Any, must_take_gradients: bool) -> torch.Tensor:
    """Return the loss of a batch; OptionError if it raises, is not a scalar, or lacks a required gradient."""
    try:
        value = loss(output, batch)
    except TelemetryError:  # of a loss by name, whose output and target are not alike
        raise
    except (Exception, SystemExit) as error:  # a user's loss may raise anything
        raise OptionError(f"the loss raised {describe_error(error)}") from error
    if not isinstance(value, torch.Tensor):
        raise OptionError(f"the loss returned a {type(value).__name__}; {_EXPECTED}")
    if value.ndim or not value.is_floating_point():
        kind = f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
        raise OptionError(f"the loss returned {kind}; {_EXPECTED}")
    if must_take_gradients and not value.requires_grad:
        raise OptionError(
            f"the loss does not require a gradient: {_explain_missing(list(tensors_in(output)))}"
        )
    return value


def compute_gradients(loss: torch.Tensor) -> dict[int, torch.Tensor]:
    """Return d loss / d leaf by the id of the leaf, for every leaf of the graph; writes no `.grad`.

    Hooks on leaves do not run: they belong to a training, which has other gradients.

    ModelError if a backward function raises.
    """
    leaves = _find_leaves(loss) if loss.requires_grad else []
    if not leaves:
        return {}
    try:
        with without_tensor_hooks(leaves):
            gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
    except Exception as error:  # a backward function may raise anything
        detail = f"{type(error).__name__}: {error}"
        raise ModelError(f"the gradients of the loss cannot be computed: {detail}") from error
    return {
        id(leaf): gradient if gradient.layout is torch.strided else gradient.to_dense()
        for leaf, gradient in zip(leaves, gradients, strict=True)
        if gradient is not None
    }


def _find_leaves(loss: torch.Tensor) -> list[torch.Tensor]:
    """Return every leaf that requires a gradient, also leaves that are not parameters.

    Autograd skips every part of the graph that leads to none of the requested leaves.
    """
    waiting = [torch.autograd.graph.get_gradient_edge(loss).node]
    seen = set(waiting)
    leaves: list[torch.Tensor] = []
    while waiting:
        node = waiting.pop()
        if type(node).__name__ == "AccumulateGrad":
            leaves.append(node.variable)  # type: ignore[attr-defined]
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
    return leaves


def _explain_missing(output: list[torch.Tensor]) -> str:
    if output and all(tensor.is_inference() for tensor in output):
        return "the model's output was made in inference mode"
    if output and not any(tensor.requires_grad for tensor in output):
        return "the model's output does not require one, for example because of torch.no_grad() or detach()"
    return "the model's output does, so the loss detaches it or does not use it"
