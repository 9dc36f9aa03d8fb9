"""A user's loss: evaluated, checked and differentiated, with one line for whatever cannot be."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fno_telemetry.errors import ModelError, OptionError
from fno_telemetry.tracing.nested_tensors import tensors_in

Loss = Callable[[Any, Any], torch.Tensor]
"""`loss(output, batch)` returns a scalar; for several batches it should be a mean over samples."""

_EXPECTED = "a scalar tensor was expected, such as torch.nn.functional.mse_loss gives"

_SHARDING = ("torch.distributed.fsdp", "torch.distributed.tensor")


def require_gradients(model: nn.Module) -> None:
    """Refuse a model whose parameters' gradients cannot be had; ModelError with what to do."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_inference():
            raise ModelError(
                f"{name!r} was made in inference mode and takes part in no gradient: make the model outside "
                "of torch.inference_mode(), or leave out the loss"
            )
    classes = {base for module in model.modules() for base in type(module).__mro__}
    classes |= {type(parameter) for parameter in model.parameters()}
    # What is differentiated are gathered copies, whose gradients only a full backward hands back.
    if any(found.__module__.startswith(_SHARDING) for found in classes):
        raise ModelError(
            "the parameters are sharded, so their gradients cannot be taken here: capture the model before "
            "it is sharded, or from a checkpoint, or leave out the loss"
        )


def evaluate(loss: Loss, output: Any, batch: Any, must_take_gradients: bool) -> torch.Tensor:
    """Return the loss of a batch; OptionError when it raises, is no scalar, or takes no gradient but must."""
    try:
        value = loss(output, batch)
    except (Exception, SystemExit) as error:  # a user's loss may raise anything
        raise OptionError(f"the loss raised {type(error).__name__}: {error}") from error
    if not isinstance(value, torch.Tensor):
        raise OptionError(f"the loss returned a {type(value).__name__}; {_EXPECTED}")
    if value.ndim or not value.is_floating_point():
        kind = f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
        raise OptionError(f"the loss returned {kind}; {_EXPECTED}")
    if must_take_gradients and not value.requires_grad:
        raise OptionError(f"the loss takes no gradient: {_why_none(list(tensors_in(output)))}")
    return value


def gradients_by_leaf(loss: torch.Tensor) -> dict[int, torch.Tensor]:
    """Return d loss / d leaf by the leaf's id, for every leaf that it is made of; no `.grad` is written.

    ModelError when a backward function raises.
    """
    leaves = _leaves_of(loss) if loss.requires_grad else []
    if not leaves:
        return {}
    try:
        found = torch.autograd.grad(loss, leaves, allow_unused=True)
    except Exception as error:  # backward functions raise what they like
        detail = f"{type(error).__name__}: {error}"
        raise ModelError(f"the gradients of the loss cannot be computed: {detail}") from error
    return {
        id(leaf): gradient if gradient.layout is torch.strided else gradient.to_dense()
        for leaf, gradient in zip(leaves, found, strict=True)
        if gradient is not None
    }


def _leaves_of(loss: torch.Tensor) -> list[torch.Tensor]:
    """Return every leaf that requires a gradient, also where it is nobody's parameter.

    What does not lead to a leaf that is asked for would not be differentiated at all.
    """
    waiting = [torch.autograd.graph.get_gradient_edge(loss).node]
    seen = set(waiting)
    found: list[torch.Tensor] = []
    while waiting:
        node = waiting.pop()
        if type(node).__name__ == "AccumulateGrad":
            found.append(node.variable)  # type: ignore[attr-defined]
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
    return found


def _why_none(output: list[torch.Tensor]) -> str:
    if output and all(tensor.is_inference() for tensor in output):
        return "the model's output was made in inference mode"
    if output and not any(tensor.requires_grad for tensor in output):
        return "the model's output takes none, as under torch.no_grad() or behind detach()"
    return "the model's output does, so the loss itself detaches or leaves it out"
