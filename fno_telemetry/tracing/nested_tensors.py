"""The tensors in whatever a forward takes or returns, each with the item name that reports use."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from torch.utils._pytree import tree_map_only

import torch

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
    """Yield the tensors of `items` without their names."""
    for _, tensor in items(value):
        yield tensor


def copy_tensors(value: Any) -> Any:
    """Return `value` with every tensor copied; copies are leaves and require a gradient as before."""
    return tree_map_only(torch.Tensor, _copied, value)


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)


def _nested(value: object, path: tuple[str, ...], depth: int) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield ".".join(path), value
    elif depth and not isinstance(value, _HOLD_NO_TENSOR):
        for name, part in _parts(value):
            yield from _nested(part, (*path, name), depth - 1)


def _parts(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        yield from zip(value._fields, value, strict=True)
    elif isinstance(value, tuple | list):
        yield from ((str(index), part) for index, part in enumerate(value))
    elif isinstance(value, Mapping):
        yield from ((str(key), part) for key, part in value.items())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
