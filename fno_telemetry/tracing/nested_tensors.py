"""Tensors in nested inputs and outputs: listed with the item names of reports, or changed."""

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

_DEPTH = 4

# Most arguments of functions have one of these types; checking them first avoids the slower checks below.
_HOLD_NO_TENSOR = (int, float, complex, str, bytes, slice, torch.dtype, torch.device, type(None))


def items(output: object) -> Iterator[tuple[str | None, torch.Tensor]]:
    """Yield (item, tensor): item is None for a lone tensor, else "0", "amp" or "0.amp" for nested ones.

    Looks into tuples, lists, dicts, named tuples and dataclasses; other objects count as holding no tensor.
    """
    if isinstance(output, torch.Tensor):
        yield None, output
    else:
        yield from _nested(output, (), _DEPTH)


def tensors_in(value: object) -> Iterator[torch.Tensor]:
    """Return an iterator over the tensors of `items` without their names, which takes less time."""
    found: list[torch.Tensor] = []
    _collect(value, _DEPTH, found)
    return iter(found)


def copy_tensors(value: Any) -> Any:
    """Return `value` with every tensor copied; copies are leaves and require a gradient as before."""
    return map_tensors(value, _copied)


def map_tensors(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return `value` with `change` applied to every tensor in it; `value` itself is not changed.

    Looks into the containers of `items` at any depth, frozen dataclasses included, and into those registered
    with torch's pytree. A container without a changed tensor is returned as the same object.
    """
    return _changed(value, torch.Tensor, change, frozenset())


def map_objects(value: Any, kind: type[Any], change: Callable[[Any], Any]) -> Any:
    """Return `value` with `change` applied to every object of a kind in it, as `map_tensors` does."""
    return _changed(value, kind, change, frozenset())


def _changed(value: Any, kind: type[Any], change: Callable[[Any], Any], around: frozenset[int]) -> Any:
    """Apply `map_objects` inside the containers of these ids; one that holds itself is not changed."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, _HOLD_NO_TENSOR) or id(value) in around:
        return value
    parts = dict(_attributes(value))
    if not parts:
        return tree_map_only(kind, change, value)
    changed = {name: _changed(part, kind, change, around | {id(value)}) for name, part in parts.items()}
    if all(changed[name] is parts[name] for name in parts):
        return value
    return _rebuild(value, changed)


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    with contextlib.suppress(NotImplementedError):  # a class of tensors may have no copies
        return tensor.detach().clone().requires_grad_(tensor.requires_grad)
    return tensor


def _nested(value: object, path: tuple[str, ...], depth: int) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield ".".join(path), value
    elif depth and not isinstance(value, _HOLD_NO_TENSOR):
        for name, part in list_parts(value):
            yield from _nested(part, (*path, name), depth - 1)


def _collect(value: object, depth: int, found: list[torch.Tensor]) -> None:
    if isinstance(value, torch.Tensor):
        found.append(value)
    elif depth and not isinstance(value, _HOLD_NO_TENSOR):
        if isinstance(value, tuple | list):
            parts: Iterable[object] = value
        elif type(value) is dict:
            parts = value.values()
        else:
            parts = [part for _, part in _attributes(value)]
        for part in parts:
            if isinstance(part, torch.Tensor):
                found.append(part)
            elif not isinstance(part, _HOLD_NO_TENSOR):
                _collect(part, depth - 1, found)


def list_parts(value: object) -> Iterator[tuple[str, object]]:
    """Yield the contents of a container with their names: fields, positions or keys; nothing for another."""
    return ((str(name), part) for name, part in _attributes(value))


def _attributes(value: object) -> Iterator[tuple[Any, object]]:
    """Yield the contents of a container by field, index or key."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        yield from zip(value._fields, value, strict=True)
    elif isinstance(value, tuple | list):
        yield from enumerate(value)
    elif isinstance(value, Mapping):
        yield from value.items()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        # A field that __init__ leaves out may be unset.
        yield from (
            (f.name, getattr(value, f.name)) for f in dataclasses.fields(value) if hasattr(value, f.name)
        )


def _rebuild(value: Any, parts: Mapping[Any, Any]) -> Any:
    """Return a container of the same kind with these parts."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return value._make(parts.values())  # type: ignore[attr-defined]
    if isinstance(value, tuple | list):
        return type(value)(list(parts.values()))
    if isinstance(value, Mapping) and not isinstance(value, MutableMapping):
        return dict(parts)
    made = copy.copy(value)
    for name, part in parts.items():
        if isinstance(value, MutableMapping):
            made[name] = part
        else:
            # Works for frozen dataclasses, and avoids __init__, which may take other arguments.
            object.__setattr__(made, name, part)
    return made
