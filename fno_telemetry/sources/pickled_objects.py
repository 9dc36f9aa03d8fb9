"""The parts of a pickle that is read as data: names, answers to names, and stand-ins for objects."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

_FIRST = 100  # values of a dict that are looked at, however often it is given to objects


class PickleRefused(Exception):
    """A pickle that cannot be read as data; the text says why, to follow a colon."""


@dataclass(frozen=True)
class Name:
    """A function or class that a pickle names, and nothing else of it."""

    path: str


@dataclass(frozen=True, eq=False)
class Answer:
    """What a name is answered by: a function of ours, called with the arguments that the pickle gives."""

    function: Callable[..., object]


class StateDict(dict[Any, Any]):
    """Replaces an ordered dict; it keeps what a network noted of its modules' versions."""

    _metadata: dict[Any, Any]

    def take_state(self, state: object) -> None:
        """Keep the versions, and nothing else."""
        if isinstance(state, dict) and isinstance(state.get("_metadata"), dict):
            self._metadata = state["_metadata"]


class StandIn(dict[Any, Any]):
    """Replaces an object of a class that is not known here; only its items as a dict are kept."""

    def __init__(self, name: str, arguments: object = ()) -> None:
        self.name = name
        self.holds_tensors = False
        self.take_state(arguments)

    # Members of enumerations are keys; a plain dict cannot be one.
    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def take_state(self, state: object) -> None:
        """Note whether weights are in the state, as a network's `_parameters` are, and drop it."""
        if isinstance(state, dict) and "_parameters" in state:
            self.holds_tensors = True
        elif isinstance(state, dict | tuple | list):
            parts = state.values() if isinstance(state, dict) else state
            self.holds_tensors |= any(map(_holds_tensors, parts))


def _holds_tensors(part: object) -> bool:
    """Return whether this is a tensor, an object that holds some, or a dict that begins with some."""
    if isinstance(part, StandIn):
        return part.holds_tensors
    inside = islice(part.values(), _FIRST) if isinstance(part, dict) else (part,)
    return any(isinstance(each, torch.Tensor) for each in inside)
