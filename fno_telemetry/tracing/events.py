"""The events that a trace sends to its listener: frozen, with everything that a listener needs."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch

from fno_telemetry.tracing.appearances import Formula
from fno_telemetry.tracing.module_calls import Call


@dataclass(frozen=True, eq=False)
class CallEnded:
    """A module returned `output`.

    `makers` is a mask of the last calls with parameters of their own on the way to the output; it is 0 for a
    call inside another one.
    """

    call: Call
    inputs: tuple[Any, ...]
    output: Any
    makers: int = 0


@dataclass(frozen=True, eq=False)
class ActivationCalled:
    """An activation function was called in the forward of `parent`; `number` counts such calls from 0."""

    parent: Call
    name: str
    number: int
    output: torch.Tensor
    formula: Formula = ()

    @property
    def path(self) -> str:
        """The name under which the function is recorded: `block#gelu`."""
        return f"{self.parent.path}#{self.name}"


@dataclass(frozen=True, eq=False)
class BranchesAdded:
    """A spectral operand `s` and a local operand `t` were added in the forward of `parent`.

    Parallel spectral calls form one operand. `local` is empty if no module produced `t`. `order` counts the
    additions of a batch: a sum is reported when it is used, which may be after a later one. `before` is the
    input of the last spectral call, None if it was overwritten since; `result` is what the forward goes on
    with, and `spans_blocks` tells whether it contains the input of an earlier block too. The formulas say how
    `s`, `t`, `before` and `result` are computed from tensors that appear elsewhere.
    """

    spectral: tuple[Call, ...]
    local: tuple[Call, ...]
    parent: Call
    s: torch.Tensor
    t: torch.Tensor
    order: int
    before: torch.Tensor | None
    result: torch.Tensor | None
    spans_blocks: bool
    formulas: tuple[Formula, ...] = ((), (), (), ())


@dataclass(frozen=True, eq=False)
class ResidualAdded:
    """The output of `spectral` was added to its block's input `before`, giving `after`.

    `result` is what the forward goes on with, which may contain further terms. The formulas are those of
    `before` and `after`; see also `BranchesAdded`.
    """

    spectral: tuple[Call, ...]
    parent: Call
    before: torch.Tensor
    after: torch.Tensor
    order: int
    result: torch.Tensor | None
    formulas: tuple[Formula, ...] = ((), ())


@dataclass(frozen=True)
class Padded:
    """A tensor was padded by these amounts before and after each axis, the last axis first.

    It happened in the `function`-th function that the call with the index `parent` called.
    """

    amounts: tuple[int, ...]
    parent: int = 0
    function: int = -1


@dataclass(frozen=True, eq=False)
class Overwriting:
    """A function is about to write into the memory of `target`, which other tensors may share."""

    target: torch.Tensor


@dataclass(frozen=True, eq=False)
class Failed:
    """Tracing or a listener raised an error in the module `where`; the forward continues unaffected."""

    where: str
    error: BaseException

    @property
    def line(self) -> str:
        """The error in one line."""
        return f"{type(self.error).__name__}: {self.error}"


Event = CallEnded | ActivationCalled | BranchesAdded | ResidualAdded | Padded | Overwriting | Failed


class Listener(Protocol):
    """Receives the events of a trace, outside of tracing and autograd; must not change any tensor."""

    def on(self, event: Event) -> None:
        """Handle one event."""
        ...
