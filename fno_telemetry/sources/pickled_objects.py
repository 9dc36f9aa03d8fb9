"""What stands in a pickle that is read as data: names, answers to names, and stand-ins for objects."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


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


class StandIn(dict[Any, Any]):
    """What stands in for an object of a class that is not known here; only its items as a dict are kept."""

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
        parts: Any = state.values() if isinstance(state, dict) else state
        if isinstance(state, torch.Tensor) or (isinstance(state, dict) and "_parameters" in state):
            self.holds_tensors = True
        elif isinstance(state, dict | tuple | list):
            self.holds_tensors |= any(
                part.holds_tensors if isinstance(part, StandIn) else isinstance(part, torch.Tensor)
                for part in parts
            )
