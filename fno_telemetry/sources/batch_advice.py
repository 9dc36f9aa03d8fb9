"""Which choice of parts would fit a batch, and what would make an output and a target alike."""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from fno_telemetry.sources.batch_words import list_fields
from fno_telemetry.tracing.nested_tensors import items, tensors_in

Arguments = tuple[list[Any], Any]
"""The parts of a batch that go into a model, and the target."""

_USUAL_TARGETS = ("y", "target", "targets", "label", "labels", "truth", "output", "outputs", "solution")
_USUAL_INPUTS = ("x", "input", "inputs", "data", "image", "field")
_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def suggest_choice(batch: Any, forward: Callable[..., Any]) -> Arguments | None:
    """Return the parts that likely go into this forward, and the one that is likely the target.

    None where a batch has no part left over for a target.
    """
    holding = [name for name, part in list_fields(batch).items() if _holds_numbers(part)]
    if isinstance(batch, tuple | list) and not hasattr(batch, "_fields"):
        positions = [int(name) for name in holding]
        count = max(1, _count_required(forward))
        return (positions[:count], positions[count]) if len(positions) > count else None
    known = [name for name in holding if name in list_arguments(forward) and name not in _USUAL_TARGETS]
    inputs = known or [name for name in _USUAL_INPUTS if name in holding][:1] or holding[:1]
    left = [name for name in holding if name not in inputs]
    targets = [name for name in _USUAL_TARGETS if name in left] or left
    return (inputs, targets[0]) if targets else None


def spell_choice(inputs: list[Any], target: Any) -> str:
    """Return a choice as it is typed: `inputs=0, target=1`."""
    chosen = inputs[0] if len(inputs) == 1 else inputs
    return f"`inputs={chosen!r}, target={target!r}`"


def list_arguments(function: Callable[..., Any]) -> frozenset[str]:
    """Return the names that a function takes as keyword arguments, without those of a `**keywords`."""
    return frozenset(name for name, one in _read_parameters(function).items() if one.kind in _BY_NAME)


def suggest_target(batch: Any, output: torch.Tensor, chosen: Collection[str]) -> Any:
    """Return a part of a batch that was not chosen and has the shape of the output; None without one."""
    for name, part in list_fields(batch).items():
        is_tensor = isinstance(part, torch.Tensor | np.ndarray)
        if is_tensor and name not in chosen and tuple(part.shape) == tuple(output.shape):
            return int(name) if isinstance(batch, tuple | list) and name.isdecimal() else name
    return None


def suggest_prediction(output: Any, target: torch.Tensor) -> str | None:
    """Return an expression of `output` that has the shape and kind of the target; None if none is known."""
    for item, tensor in items(output):
        name = _spell_item(output, item)
        for expression, made in _list_alike(name, tensor):
            # Views tell shapes without computing anything.
            if made.shape == target.shape and made.is_complex() == target.is_complex():
                return expression
    return None


def _list_alike(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield what is often done to an output before it is compared."""
    yield name, tensor
    yield from _list_moved(name, tensor)
    if tensor.is_complex():
        yield from _list_moved(f"torch.view_as_real({name})", torch.view_as_real(tensor.resolve_conj()))
    elif tensor.ndim and tensor.shape[-1] == 2 and tensor.is_floating_point():
        made = tensor.new_empty(tensor.shape[:-1], dtype=torch.complex64)
        expression = f"torch.view_as_complex({name}.contiguous())"
        yield expression, made
        yield from _list_moved(expression, made)
        # The target may be an amplitude.
        yield from _list_moved(f"{expression}.abs()", made.real)


def _list_moved(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield a tensor with its channels last instead of first or the other way, and without an axis of 1."""
    if tensor.ndim > 2:
        yield f"{name}.movedim(-1, 1)", tensor.movedim(-1, 1)
        yield f"{name}.movedim(1, -1)", tensor.movedim(1, -1)
    for axis in (1, -1):
        if tensor.ndim > 1 and tensor.shape[axis] == 1:
            yield f"{name}.squeeze({axis})", tensor.squeeze(axis)
        if tensor.ndim:
            yield f"{name}.unsqueeze({axis})", tensor.unsqueeze(axis)


def _spell_item(output: Any, item: str | None) -> str:
    if item is None:
        return "output"
    keys = [f"[{key}]" if key.isdecimal() else f"[{key!r}]" for key in item.split(".")]
    named = not isinstance(output, tuple | list | Mapping) or hasattr(output, "_fields")
    return f"output.{item}" if named else "output" + "".join(keys)


def _holds_numbers(part: Any) -> bool:
    return isinstance(part, np.ndarray) or next(tensors_in(part), None) is not None


def _count_required(function: Callable[..., Any]) -> int:
    required = (one for one in _read_parameters(function).values() if one.kind in _BY_POSITION)
    return sum(one.default is inspect.Parameter.empty for one in required)


def _read_parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # builtins and some C extensions have no signature
        return {}
