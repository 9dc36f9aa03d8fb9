"""The contents of any object: attributes, containers, tensors and what else may be the state of a model."""

import sys
import types
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import nn

from fno_telemetry.isolation.contents import Contents, Kept
from fno_telemetry.isolation.held_values import keep_position, keep_random_state, keep_values
from fno_telemetry.isolation.tensor_values import CopyBudget, TensorValue

# Objects of these packages belong to the process or to the training; those of torch look after themselves.
_OTHERS = frozenset({*sys.stdlib_module_names, "torch", "fno_telemetry", "wandb", "tensorboard"})
_OTHERS |= {"lightning", "pytorch_lightning", "lightning_fabric"}
# The parts of the standard library whose classes only hold what they are given.
_HOLDING = frozenset({"builtins", "abc", "typing", "collections", "types", "argparse"})
# Another thread or process may change an object that holds one of these at any time.
_CONCURRENT = frozenset({"threading", "queue", "multiprocessing", "concurrent", "asyncio"})

FIXED = (bool, int, float, complex, str, bytes, type(None), type, types.FunctionType, types.ModuleType)
"""Objects of these types hold no state of a model, or none that can be told; most attributes are of them."""

_MISSING = object()


def keep(value: object, budget: CopyBudget) -> tuple[list[Kept], list[object]]:
    """Return the contents of an object and the objects inside it; nothing for what is not state of a model.

    Values of tensors and arrays are copied as far as the budget allows; all else is kept by reference.
    """
    if isinstance(value, FIXED):
        return [], []
    if isinstance(value, torch.Tensor):
        return [TensorValue(value, budget)], [*vars(value).values()]
    own = (
        keep_container(value)
        or keep_values(value, budget)
        or keep_random_state(value)
        or keep_position(value)
    )
    kept: list[Kept] = [] if own is None else [own]
    inside = _list_inside(value)
    if _is_state(value):
        own_dict = getattr(value, "__dict__", None)
        named = (_keep_dict(own_dict, dict) if isinstance(own_dict, dict) else None, keep_slots(value))
        for attributes in named:
            if attributes is not None:
                kept.append(attributes)
                inside += attributes.before.values()
    return kept, inside


def keep_slots(value: object) -> Contents | None:
    """Return the attributes in slots by name; None without slots."""
    cls: Any = type(value)
    slots = _find_slots(cls)
    if not slots:
        return None
    before = _read_slots(value, slots)
    return Contents(partial(_read_slots, value, slots), before, partial(_write_slots, value, slots, before))


def keep_container(value: object) -> Contents | None:
    """Return what a list, dict, set or deque holds; None for anything else."""
    # By the methods of the built-in type: those of a derived class may do anything.
    match value:
        case list():
            items = list.copy(value)
            write = partial(list.__setitem__, value, slice(None), items)
            return Contents(partial(list.copy, value), items, write)
        case dict():
            base = OrderedDict if isinstance(value, OrderedDict) else dict
            return _keep_dict(value, base)
        case set():
            members = set(set.__iter__(value))
            return Contents(lambda: set(set.__iter__(value)), members, partial(_write_set, value, members))
        case deque():
            queued = [*deque.__iter__(value)]
            return Contents(lambda: [*deque.__iter__(value)], queued, partial(_write_deque, value, queued))
    return None


def _keep_dict(value: dict[Any, Any], base: type[dict[Any, Any]]) -> Contents:
    before = dict(base.items(value))
    return Contents(lambda: dict(base.items(value)), before, partial(_write_dict, value, base, before))


@lru_cache(maxsize=1024)
def _find_slots(cls: type) -> dict[str, types.MemberDescriptorType]:
    return {
        name: slot
        for base in cls.__mro__
        for name, slot in vars(base).items()
        if isinstance(slot, types.MemberDescriptorType) and _package(base) not in _OTHERS
    }


def _is_state(value: object) -> bool:
    """Whether the attributes of an object may be part of the state of a model."""
    if isinstance(value, nn.Module):
        return True
    cls: Any = type(value)
    # An error that is raised takes notes and a traceback with it.
    if _belongs_to_others(cls) or isinstance(value, BaseException):
        return False
    held = getattr(value, "__dict__", {}).values()
    return not any(_package(type(one)) in _CONCURRENT for one in held)


@lru_cache(maxsize=1024)
def _belongs_to_others(cls: type) -> bool:
    return any(_package(base) in _OTHERS - _HOLDING for base in cls.__mro__)


def _package(cls: type) -> str:
    return cls.__module__.partition(".")[0]


def _list_inside(value: object) -> list[object]:
    match value:
        case dict():
            return [*dict.keys(value), *dict.values(value)]
        case types.MappingProxyType():
            return [*value.keys(), *value.values()]
        case memoryview():
            return [value.obj]
        case list() | tuple() | set() | frozenset() | deque():
            return [*value]
        case np.ndarray() if value.dtype.hasobject:
            return [*value.flat]
        case types.MethodType():
            return [value.__self__]
        case partial():
            return [value.func, *value.args, *value.keywords.values()]
        case map() | zip() | filter() | enumerate():
            return [*value.__reduce__()[1]]  # the iterators that it advances
    return []


def _write_dict(value: dict[Any, Any], base: type[dict[Any, Any]], before: Mapping[Any, Any]) -> None:
    base.clear(value)
    for key, part in before.items():
        base.__setitem__(value, key, part)


def _write_set(value: set[Any], before: Iterable[Any]) -> None:
    set.clear(value)
    set.update(value, before)


def _write_deque(value: deque[Any], before: Iterable[Any]) -> None:
    deque.clear(value)
    deque.extend(value, before)


def _read_slots(value: object, slots: Mapping[str, types.MemberDescriptorType]) -> dict[str, object]:
    read = {}
    for name, slot in slots.items():
        try:
            read[name] = slot.__get__(value, type(value))
        except AttributeError:
            read[name] = _MISSING
    return read


def _write_slots(
    value: object, slots: Mapping[str, types.MemberDescriptorType], before: Mapping[str, object]
) -> None:
    now = _read_slots(value, slots)
    for name, slot in slots.items():
        if before[name] is not _MISSING:
            slot.__set__(value, before[name])
        elif now[name] is not _MISSING:
            slot.__delete__(value)
