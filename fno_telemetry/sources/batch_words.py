"""Batches in words, for messages: types, shapes and names of what is in them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fno_telemetry.tracing.nested_tensors import list_parts

BATCH_NOTE = "fno-telemetry: a batch was taken to be "
"""How the note begins that a capture adds to an error of the model's forward; `describe_call` follows."""

CHOICE_NOTE = "fno-telemetry: as for the parts of a batch: "
"""How the note begins that says which choice of parts may fit."""

_MOST_PARTS = 6  # of a batch that a description names


def describe_call(args: Sequence[Any], keywords: Mapping[str, Any]) -> str:
    """Return what a model gets of a batch: `2 positional arguments: (4, 1, 64, 64) float32, (4,) int64`."""
    by_name = [f"{key}={describe_value(part)}" for key, part in keywords.items()]
    if len(args) == 1 and not by_name:
        return f"one argument: {describe_value(args[0])}"
    kinds = (("positional", list(map(describe_value, args))), ("keyword", by_name))
    return " and ".join(_counted(kind, parts) for kind, parts in kinds if parts) or "no argument"


def describe_value(value: Any, depth: int = 2) -> str:
    """Return shape and type of a tensor or array; the parts of a container, others by their type."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    name = type(value).__name__
    inner = list_fields(value).items() if depth else ()
    parts = [f"{item}: {describe_value(part, depth - 1)}" for item, part in inner]
    return f"{name} of ({_joined(parts)})" if parts else name


def describe_parts(batch: Any) -> str:
    """Return a sentence: `A batch is a list of 0: (4, 1, 8, 8) float32, 1: (4,) int64.`."""
    parts = [f"{name}: {describe_value(part)}" for name, part in list_fields(batch).items()]
    if isinstance(batch, torch.Tensor) or not parts:
        return f"A batch is one {type(batch).__name__}: {describe_value(batch)}."
    return f"A batch is a {type(batch).__name__} of {_joined(parts)}."


def list_fields(value: Any) -> dict[str, Any]:
    """Return the contents of a container by name, or the tensors among the attributes of another object."""
    if isinstance(value, torch.Tensor):
        return {}
    if (parts := dict(list_parts(value))) or isinstance(value, str | bytes | int | float | complex | None):
        return parts
    return _list_stored(value)


def _list_stored(value: Any) -> dict[str, Any]:
    """Return what an object such as a graph holds by its `keys`, or else the tensors in its attributes."""
    try:
        keys = value.keys() if callable(getattr(value, "keys", None)) else ()
        if stored := {str(key): value[key] for key in keys}:
            return stored
        attributes = vars(value).items()
    except Exception:  # noqa: BLE001 - an object of the user's may raise anything
        return {}
    return {name: one for name, one in attributes if isinstance(one, torch.Tensor) and name.isidentifier()}


def _counted(kind: str, parts: list[str]) -> str:
    return f"{len(parts)} {kind} argument{'' if len(parts) == 1 else 's'}: {_joined(parts)}"


def _joined(parts: list[str]) -> str:
    more = len(parts) - _MOST_PARTS
    return ", ".join(parts[:_MOST_PARTS]) + (f" and {more} more" if more > 0 else "")
