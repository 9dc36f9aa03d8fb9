"""How the states of several processes combine: by the largest of some numbers, then by sums of others.

What a state holds is described first, as JSON can hold it; once the processes agree on the description, each
of them gives the same numbers in the same order, also one that has no such state.
"""

import dataclasses
import importlib
import math
import operator
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch

from fno_telemetry.statistics.contract import Combining, Empty, MergedBy, SummedState, Undefined, list_rules
from fno_telemetry.statistics.moments_over_processes import MOMENTS, About, Numbers

NOTHING: About = {"is": "nothing"}
"""The description of a state that no process has."""

_STATES = ("nothing", "unknown", "moments", "fields")
_DIFFERS = "its shape differs between the processes"
_KNOWN: dict[Any, Combining] = {
    operator.add: "sum",
    torch.maximum: "largest",
    max: "largest",
    operator.or_: "largest",
    torch.minimum: "smallest",
    min: "smallest",
    operator.and_: "smallest",
    torch.hypot: "norm",
}
_EMPTY, _HELD, _UNDEFINED, _OWNED = 1, 2, 3, 1 << 40


class Codes:
    """Numbers for the reasons why states are undefined, so that of several the usual one is taken."""

    def __init__(self, reasons: Iterable[str]) -> None:
        self.reasons = sorted(set(reasons))

    def find(self, state: Any, is_first: bool) -> float:
        """Return the number of a state; the largest of all processes says what their state is."""
        if state is None:
            return 0
        if isinstance(state, Empty):
            return _EMPTY
        if isinstance(state, Undefined):
            return _UNDEFINED + len(self.reasons) - self.reasons.index(state.reason)
        return _OWNED if is_first else _HELD

    def read(self, code: float) -> Any:
        """Return what a number stands for: True for a state that is held."""
        if code <= 0:
            return None
        if code in (_HELD, _OWNED):
            return True
        return (
            Empty() if code == _EMPTY else Undefined(self.reasons[len(self.reasons) + _UNDEFINED - int(code)])
        )


class Numbered:
    """Numbers that are read in the order in which they were written."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers
        self._at = 0

    def take(self, number: int) -> Numbers:
        """Return the next numbers."""
        self._at += number
        return self._numbers[self._at - number : self._at]


def describe(state: Any, is_first: bool = False) -> About:
    """Return what must be known of a state to combine it with those of other processes.

    With `is_first` the state of the first process that has one counts, whatever it holds.
    """
    if state is None or isinstance(state, Undefined | Empty):
        return NOTHING
    first = {"first": True} if is_first else {}
    cls = type(state)
    name = f"{cls.__module__}:{cls.__qualname__}"
    if not is_first and (moments := MOMENTS.get(cls)) is not None:
        about = moments.describe(state)
        if isinstance(about, str):
            return {"is": "unknown", "reason": about}
        return {"is": "moments", "class": name, "of": about}
    if not dataclasses.is_dataclass(state) or not (is_first or isinstance(state, SummedState)):
        reason = f"{cls.__name__} does not say how the states of several processes combine"
        return {"is": "unknown", "reason": reason}
    fields = {}
    for field, combining in _list_combining(state, is_first).items():
        value = getattr(state, field)
        about = describe(value) if combining == "state" else _describe_part(value, combining)
        if about["is"] == "unknown" and combining != "state":
            reason = f"the field {field!r} of {cls.__name__} does not say how it combines over processes"
            return {"is": "unknown", "reason": reason}
        fields[field] = about
    return {"is": "fields", "class": name, "of": fields, **first}


def list_reasons(state: Any) -> set[str]:
    """Return the reasons of a state, and of those that it consists of."""
    if isinstance(state, Undefined):
        return {state.reason}
    if not dataclasses.is_dataclass(state) or isinstance(state, type):
        return set()
    return set().union(*(list_reasons(getattr(state, each.name)) for each in dataclasses.fields(state)))


def join(one: About, other: About) -> About:
    """Return a description that holds for the states of both; the same in either order."""
    if one == other or other == NOTHING:
        return one
    if one == NOTHING:
        return other
    kinds = {one["is"], other["is"]}
    if "unknown" in kinds:
        return min(
            (each for each in (one, other) if each["is"] == "unknown"), key=lambda each: each["reason"]
        )
    if len(kinds) > 1 or any(one.get(key) != other.get(key) for key in ("class", "by", "first")):
        return _differs()
    match one["is"]:
        case "moments":
            about = MOMENTS[_find_class(one["class"])].join(one["of"], other["of"])
            return _differs() if about is None else {**one, "of": about}
        case "fields":
            fields = {name: join(part, other["of"][name]) for name, part in one["of"].items()}
            # A state within a state may be unknown by itself.
            lost = (
                part
                for name, part in fields.items()
                if part["is"] == "unknown" and one["of"][name]["is"] not in _STATES
            )
            return next(lost, {**one, "of": fields})
        case "masks":
            shapes = [*one["shapes"], *(each for each in other["shapes"] if each not in one["shapes"])]
            return {**one, "shapes": sorted(shapes)}
        case "tuple" if len(one["parts"]) == len(other["parts"]):
            parts = [join(*pair) for pair in zip(one["parts"], other["parts"], strict=True)]
            return next((part for part in parts if part["is"] == "unknown"), {**one, "parts": parts})
        case "tensor" if one["shape"] == other["shape"]:
            return {**one, "dtype": _name(torch.promote_types(*(_dtype(each) for each in (one, other))))}
    return _differs()


def add_largest(about: About, state: Any, codes: Codes, out: list[Numbers], rank: int = 0) -> None:
    """Append the numbers of a state of which the largest of all processes counts."""
    is_first = "first" in about
    out.append(np.array((codes.find(state, is_first),), np.float64))
    held = _held(state)
    if is_first:
        out.append(np.array((-math.inf if held is None else -rank,)))
    if about["is"] == "moments":
        moments = MOMENTS[_find_class(about["class"])]
        size = moments.sizes(about["of"])[0]
        out.append(np.full(size, -np.inf) if held is None else moments.largest(held, about["of"]))
    elif about["is"] == "fields":
        for name, part in about["of"].items():
            value = None if held is None else getattr(held, name)
            if part["is"] in _STATES:
                add_largest(part, value, codes, out)
            else:
                _add_part(part, value, None, out)


def add_sums(about: About, state: Any, largest: Numbered, out: list[Numbers], rank: int = 0) -> None:
    """Append the numbers of a state that add up over processes, given the largest ones of all."""
    largest.take(1)
    held = _held(state)
    if "first" in about and largest.take(1)[0] != -rank:
        held = None
    out.append(np.array((held is not None,), np.float64))
    if about["is"] == "moments":
        moments = MOMENTS[_find_class(about["class"])]
        sizes = moments.sizes(about["of"])
        known = largest.take(sizes[0])
        out.append(np.zeros(sizes[1]) if held is None else moments.sums(held, about["of"], known))
    elif about["is"] == "fields":
        for name, part in about["of"].items():
            value = None if held is None else getattr(held, name)
            if part["is"] in _STATES:
                add_sums(part, value, largest, out)
            else:
                _add_part(part, value, largest, out)


def combine(about: About, largest: Numbered, sums: Numbered, codes: Codes) -> Any:
    """Return the state of all processes: a state, Undefined, Empty, or None if no process has one."""
    found = codes.read(float(largest.take(1)[0]))
    if "first" in about:
        largest.take(1)
    number = int(sums.take(1)[0])
    state: Any = None
    if about["is"] == "unknown":
        state = Undefined(about["reason"])
    elif about["is"] == "moments":
        moments = MOMENTS[_find_class(about["class"])]
        sizes = moments.sizes(about["of"])
        taken = largest.take(sizes[0]), sums.take(sizes[1])
        state = moments.combine(about["of"], *taken) if found is True else None
    elif about["is"] == "fields":
        fields = {
            name: combine(part, largest, sums, codes)
            if part["is"] in _STATES
            else _combine_part(part, largest, sums)
            for name, part in about["of"].items()
        }
        state = _find_class(about["class"])(**fields) if found is True else None
    if found is not True:
        return found
    reason = getattr(state, "why_alone", None) if number > 1 else None
    return state if reason is None else Undefined(reason)


def combine_states(states: Sequence[Any]) -> Any:
    """Return what processes with these states would get together; None for a process without one."""
    about = reduce(join, [describe(state) for state in states])
    codes = Codes(set().union(*map(list_reasons, states)))
    packed: list[list[Numbers]] = [[] for _ in states]
    for state, own in zip(states, packed, strict=True):
        add_largest(about, state, codes, own)
    largest = np.maximum.reduce([np.concatenate(own) for own in packed])
    packed = [[] for _ in states]
    for state, own in zip(states, packed, strict=True):
        add_sums(about, state, Numbered(largest), own)
    sums = np.add.reduce([np.concatenate(own) for own in packed])
    return combine(about, Numbered(largest), Numbered(sums), codes)


def _held(state: Any) -> Any:
    return None if isinstance(state, Undefined | Empty) else state


def _list_combining(state: Any, is_first: bool) -> dict[str, Combining | None]:
    """Return how each field combines; None for an unknown rule."""
    if not is_first:
        cls: Any = type(state)
        rules = list_rules(cls)
        return {name: _find_combining(merged) for name, merged in rules.items()}
    values = {each.name: getattr(state, each.name) for each in dataclasses.fields(state)}
    return {name: "state" if _is_state(value) else "sum" for name, value in values.items()}


def _is_state(value: Any) -> bool:
    return value is None or dataclasses.is_dataclass(value)


def _find_combining(merged: MergedBy) -> Combining | None:
    try:
        return merged.over_processes or _KNOWN.get(merged.rule)
    except TypeError:  # a callable object that cannot be looked up
        return None


def _describe_part(value: Any, combining: Combining | None) -> About:
    part: About = {"is": "unknown", "reason": ""}
    if combining is None:
        return part
    if combining == "same":
        is_plain = isinstance(value, int | float | str | tuple)
        return (
            {"is": "same", "value": [list(value)] if isinstance(value, tuple) else value}
            if is_plain
            else part
        )
    if isinstance(value, torch.Tensor):
        return {"is": "tensor", "dtype": _name(value.dtype), "shape": list(value.shape), "by": combining}
    if isinstance(value, bool | int | float):
        return {"is": "number", "type": type(value).__name__, "by": combining}
    if isinstance(value, tuple):
        parts = [_describe_part(each, combining) for each in value]
        return part if part in parts else {"is": "tuple", "parts": parts}
    if isinstance(value, dict) and combining == "largest":
        return {"is": "masks", "shapes": sorted(map(list, value)), "by": combining}
    return part


def _add_part(part: About, value: Any, largest: Numbered | None, out: list[Numbers]) -> None:
    """Append the numbers of a part of which the largest counts; given those of all, the ones that add up."""
    if part["is"] == "tuple":
        for index, each in enumerate(part["parts"]):
            _add_part(each, None if value is None else value[index], largest, out)
    elif part["is"] == "masks":
        for shape in part["shapes"]:
            mask = None if value is None else value.get(tuple(shape))
            _add_part(_describe_mask(shape), mask, largest, out)
    elif part["is"] != "same":
        size = _count_numbers(part)
        numbers = None if value is None else _as_numbers(value)
        if largest is None:
            if part["by"] == "sum":
                return
            found = np.full(size, -np.inf)
            if numbers is not None:
                found = -numbers if part["by"] == "smallest" else numbers
                if part["by"] == "norm":
                    found = np.where(np.isfinite(found), found, -np.inf)
            out.append(found)
        elif part["by"] == "sum":
            out.append(np.zeros(size) if numbers is None else numbers)
        else:
            known = largest.take(size)
            if part["by"] == "norm":
                out.append(np.zeros(size) if numbers is None else np.square(numbers / _units(known)))


def _combine_part(part: About, largest: Numbered, sums: Numbered) -> Any:
    if part["is"] == "same":
        value = part["value"]
        return tuple(value[0]) if isinstance(value, list) else value
    if part["is"] == "tuple":
        return tuple(_combine_part(each, largest, sums) for each in part["parts"])
    if part["is"] == "masks":
        return {tuple(shape): _combine_part(_describe_mask(shape), largest, sums) for shape in part["shapes"]}
    size = _count_numbers(part)
    if part["by"] == "sum":
        numbers = sums.take(size)
    else:
        numbers = largest.take(size)
        if part["by"] == "norm":
            numbers = _units(numbers) * np.sqrt(sums.take(size))
        elif part["by"] == "smallest":
            numbers = -numbers
    if part["is"] == "number":
        number = float(numbers[0])
        if part["type"] == "float":
            return number
        whole = round(number) if math.isfinite(number) else 0  # infinite where no process has it
        return bool(whole) if part["type"] == "bool" else whole
    return _as_tensor(numbers, part)


def _count_numbers(part: About) -> int:
    if part["is"] == "number":
        return 1
    return math.prod(part["shape"]) * (2 if _dtype(part).is_complex else 1)


def _as_numbers(value: Any) -> Numbers:
    if not isinstance(value, torch.Tensor):
        return np.array((value,), np.float64)
    parts = torch.view_as_real(value.resolve_conj()) if value.is_complex() else value
    numbers: Numbers = parts.detach().double().numpy().reshape(-1)
    return numbers


def _as_tensor(numbers: Numbers, part: About) -> torch.Tensor:
    dtype, shape = _dtype(part), part["shape"]
    found = torch.from_numpy(numbers.copy())
    if dtype.is_complex:
        return torch.view_as_complex(found.reshape(*shape, 2)).to(dtype)
    if not dtype.is_floating_point:
        found = torch.where(torch.isfinite(found), found.round(), 0)  # infinite where no process has it
    return found.reshape(shape).to(dtype)


def _units(largest: Numbers) -> Numbers:
    """Return positive units in which squares neither overflow nor vanish."""
    return np.where(np.isfinite(largest) & (largest > 0), largest, 1.0)


def _describe_mask(shape: list[int]) -> About:
    return {"is": "tensor", "dtype": "bool", "shape": shape, "by": "largest"}


def _differs() -> About:
    return {"is": "unknown", "reason": _DIFFERS}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dtype(part: About) -> torch.dtype:
    found: torch.dtype = getattr(torch, part["dtype"])
    return found


def _find_class(name: str) -> Any:
    """Return a class of states by its module and name."""
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found
