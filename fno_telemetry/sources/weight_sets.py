"""The sets of weights in what a checkpoint holds: one network's, or those of it and of its average."""

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fno_telemetry.errors import CheckpointError
from fno_telemetry.sources.stored_arrays import StoredArray
from fno_telemetry.wording import hint_at_names

CONTAINERS = ("state_dict", "model_state_dict", "model", "state")
"""Keys under which training programs put the weights, most telling first."""

NOT_WEIGHTS = re.compile(
    r"(.*\.)?_metadata|hyper_parameters|hparams|callbacks|loops|.*(optim|sched|scaler).*", re.I
)
"""Keys of mappings that are never a network's weights, though they may hold tensors."""

DEEPEST = 8  # mappings inside mappings; a pickled mapping may hold itself

EXTRA_STATE = "_extra_state"
"""How the entry ends in which a module keeps more than tensors."""

_MOST_PLAIN = 10_000  # values in such an entry


@dataclass(frozen=True, eq=False)
class WeightSet:
    """One set of weights: its tensors by their names in it, and the versions of their modules."""

    name: str | None  # the keys that lead to it, with dots; None for the whole content
    tensors: Mapping[str, Tensor]
    versions: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    parts: tuple[str, ...] = ()  # names of mappings in it, of which each may be a set of its own
    extra_states: Mapping[str, object] = field(default_factory=dict)  # of modules that keep more than tensors


@dataclass(frozen=True, eq=False)
class FoundSets:
    """The set that is taken, those that are not, and the mappings around the weights."""

    first: WeightSet
    others: tuple[WeightSet, ...]
    entries: tuple[Mapping[object, object], ...]


def find_sets(content: object, path: str) -> FoundSets:
    """Return the sets of weights in what a file holds, the network's own first; `path` is for messages."""
    entries: list[Mapping[object, object]] = []
    first, others = _descend(_unwrap(content), None, path, entries)
    return FoundSets(first, tuple(others), tuple(entries))


def choose_set(found: FoundSets, name: str, path: str) -> tuple[WeightSet, tuple[WeightSet, ...]]:
    """Return the set of this name, and the others: a key next to others, or a prefix of tensors' names.

    CheckpointError, naming those that there are, for any other name.
    """
    first = found.first
    inside = [_cut(first, part) for part in first.parts] if len(first.parts) > 1 else [first]
    known = {one.name: one for one in (*inside, *found.others) if one.name is not None}
    if name not in known:
        # `ema` for `ema_state_dict`, if nothing else begins so.
        begun = [one for one in known if name and one.startswith((f"{name}_", f"{name}."))]
        name = begun[0] if len(begun) == 1 else name
    if name in known:
        return known.pop(name), tuple(known.values())
    if (below := _cut(first, name)).tensors:
        return below, ()
    names = [*known] or list(dict.fromkeys(full.partition(".")[0] for full in first.tensors if "." in full))
    raise CheckpointError(f"{path}: it has no set of weights called {name!r}. {hint_at_names(name, names)}")


def _cut(held: WeightSet, name: str) -> WeightSet:
    """Return the tensors whose names begin with this prefix, without it."""
    prefix = f"{name}."
    tensors = {full[len(prefix) :]: one for full, one in held.tensors.items() if full.startswith(prefix)}
    versions = {
        module.removeprefix(name).removeprefix("."): noted
        for module, noted in held.versions.items()
        if f"{module}.".startswith(prefix)
    }
    extra = {full[len(prefix) :]: one for full, one in held.extra_states.items() if full.startswith(prefix)}
    return WeightSet(name, MappingProxyType(tensors), versions, extra_states=extra)


def _descend(
    content: object, name: str | None, path: str, entries: list[Mapping[object, object]]
) -> tuple[WeightSet, list[WeightSet]]:
    """Return the set of the first container inside, and the sets next to it."""
    others: list[WeightSet] = []
    for _ in range(DEEPEST):
        if not isinstance(content, Mapping) or "param_groups" in content:
            break
        inside = {key: value for key, value in content.items() if _may_be_set(key, value)}
        key = next((key for key in CONTAINERS if key in inside), None)
        if key is None:
            break
        entries.append(content)
        for other, value in inside.items():
            if other != key:
                others += _list_sets(value, _join(name, other), path)
        content, name = content[key], _join(name, key)
    first = _make_set(content, name, path)
    if isinstance(content, Mapping):
        # A tensor in the weights themselves is a weight, whatever its name.
        entries.append({key: value for key, value in content.items() if first.parts or not is_array(value)})
        entries += [
            inner
            for part in first.parts[:1]
            if len(first.parts) == 1 and isinstance(inner := content.get(part), Mapping)
        ]
    return first, others


def _list_sets(content: object, name: str, path: str) -> list[WeightSet]:
    """Return the sets in what is next to a container; a file needs one set that can be read, not all."""
    try:
        first, more = _descend(_unwrap(content), name, path, [])
    except CheckpointError:
        return []
    return [first, *more] if first.tensors else more


def _make_set(content: object, name: str | None, path: str) -> WeightSet:
    tensors = {
        key: tensor for key, value in _flat(content) if (tensor := _whole(value, key, path)) is not None
    }
    parts = []
    if isinstance(content, Mapping):
        parts = [key for key, value in content.items() if _may_be_set(key, value)]
        if len(parts) == 1 and isinstance(content[parts[0]], Mapping):
            inner = content[parts[0]]
            below = [key for key, value in inner.items() if _may_be_set(key, value)]
            if len(below) > 1:
                parts = [f"{parts[0]}.{key}" for key in below]
    versions, extra = dict(_versions(content)), dict(_extra_states(content))
    return WeightSet(name, MappingProxyType(tensors), versions, tuple(parts), extra)


def _unwrap(content: object) -> object:
    """Return the only state dict of a tuple such as (weights, optimizer); several by their positions."""
    if isinstance(content, Sequence) and not isinstance(content, str | bytes):
        held = {str(place): item for place, item in enumerate(content) if _may_be_set(str(place), item)}
        if len(held) == 1:
            return next(iter(held.values()))
        return held or content
    return content


def _may_be_set(key: object, value: object) -> bool:
    """Return whether an entry can hold a network's weights."""
    if not isinstance(key, str) or NOT_WEIGHTS.fullmatch(key) or not isinstance(value, Mapping | nn.Module):
        return False
    return next(_flat(value), None) is not None


def is_array(value: object) -> bool:
    """Return whether a value can be a weight."""
    return isinstance(value, Tensor | StoredArray | np.ndarray)


def _flat(content: object, prefix: str = "", depth: int = DEEPEST) -> Iterator[tuple[str, object]]:
    """Yield the tensors in nested mappings and modules by dotted names; an optimizer's are passed over."""
    if isinstance(content, nn.Module):
        content = content.state_dict()
    if not isinstance(content, Mapping) or "param_groups" in content or not depth:
        return
    for key, value in content.items():
        if is_array(value):
            yield f"{prefix}{key}", value
        elif isinstance(key, str) and not NOT_WEIGHTS.fullmatch(key):
            yield from _flat(value, f"{prefix}{key}.", depth - 1)


def _versions(
    content: object, prefix: str = "", depth: int = DEEPEST
) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield what each module of a state dict noted of its version, by the module's dotted name."""
    if isinstance(content, nn.Module):
        content = content.state_dict()
    if not isinstance(content, Mapping) or not depth:
        return
    noted = getattr(content, "_metadata", None)
    for module, held in noted.items() if isinstance(noted, Mapping) else ():
        if isinstance(module, str) and isinstance(held, Mapping):
            yield f"{prefix}{module}".rstrip("."), held
    for key, value in content.items():
        if isinstance(key, str) and isinstance(value, Mapping):
            yield from _versions(value, f"{prefix}{key}.", depth - 1)


def _extra_states(content: object, prefix: str = "", depth: int = DEEPEST) -> Iterator[tuple[str, object]]:
    """Yield what modules keep next to their tensors, as far as it is plain data."""
    if isinstance(content, nn.Module):
        content = content.state_dict()
    if not isinstance(content, Mapping) or not depth:
        return
    for key, value in content.items():
        if not isinstance(key, str):
            continue
        if key.endswith(EXTRA_STATE):
            if not is_array(value) and _is_plain(value):
                yield f"{prefix}{key}", value
        elif isinstance(value, Mapping) and not NOT_WEIGHTS.fullmatch(key):
            yield from _extra_states(value, f"{prefix}{key}.", depth - 1)


def _is_plain(value: object) -> bool:
    """Return whether a value is made of numbers, texts and tensors alone, and of few of them."""
    waiting: list[object] = [value]
    seen = 0
    while waiting and seen <= _MOST_PLAIN:
        held, seen = waiting.pop(), seen + 1
        if isinstance(held, dict) and type(held) in (dict, OrderedDict):
            waiting += [*held.keys(), *held.values()]
        elif isinstance(held, list | tuple):
            waiting += held
        elif not isinstance(held, Tensor | str | bytes | int | float | None):
            return False
    return not waiting


def _whole(value: Any, name: str, path: str) -> Tensor | None:
    """Return the tensor that a weight is, None if it holds no numbers; CheckpointError for a part of one."""
    if isinstance(value, StoredArray | np.ndarray):
        try:
            return value.to_tensor() if isinstance(value, StoredArray) else torch.from_numpy(value.copy())
        except (ValueError, TypeError):
            return None
    tensor: Tensor = value.detach()
    # A DTensor, told by what it has: its class takes seconds to import.
    placements = getattr(value, "placements", None)
    if placements is None:
        return tensor
    local: Tensor = value.to_local().detach()
    if local.shape == tensor.shape and all(
        value.device_mesh.size(axis) == 1 or placement.is_replicate()
        for axis, placement in enumerate(placements)
    ):
        return local
    raise CheckpointError(
        f"{path}: {name} is a DTensor of {value.device_mesh.size()} ranks, of which this file has one part. "
        "Save full tensors: torch.distributed.checkpoint.state_dict.get_model_state_dict(model, options="
        "StateDictOptions(full_state_dict=True))"
    )


def _join(name: str | None, key: str) -> str:
    return key if name is None else f"{name}.{key}"
