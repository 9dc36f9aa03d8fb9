"""What a trace tells of a forward: frozen events that hold all a listener needs, while tensors are alive."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch

from fno_telemetry.tracing.module_calls import Call


@dataclass(frozen=True, eq=False)
class CallEnded:
    """A module returned `output`.

    `makers` are the last calls with parameters of their own on the way to it, as a mask over call indices; 0
    but for a call that no other call is around.
    """

    call: Call
    inputs: tuple[Any, ...]
    output: Any
    makers: int = 0


@dataclass(frozen=True, eq=False)
class ActivationCalled:
    """The activation function `name` was called in the forward of `parent`, for the `number`-th time."""

    parent: Call
    name: str
    number: int
    output: torch.Tensor

    @property
    def path(self) -> str:
        """The name that the function goes by: `block#gelu`."""
        return f"{self.parent.path}#{self.name}"


@dataclass(frozen=True, eq=False)
class BranchesAdded:
    """A spectral operand `s` and a local one `t` were added in the forward of `parent`.

    Several spectral calls next to each other are one operand. `local` is empty where no module made `t`.
    """

    spectral: tuple[Call, ...]
    local: tuple[Call, ...]
    parent: Call
    s: torch.Tensor
    t: torch.Tensor


@dataclass(frozen=True, eq=False)
class ResidualAdded:
    """The output of `spectral` was added to its block's input `before`, giving `after`."""

    spectral: tuple[Call, ...]
    parent: Call
    before: torch.Tensor
    after: torch.Tensor


@dataclass(frozen=True)
class Padded:
    """A field was padded by these amounts before and after each axis, the last axis first."""

    amounts: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Overwriting:
    """A function is about to write into the memory of `target`, which others may share."""

    target: torch.Tensor


@dataclass(frozen=True, eq=False)
class Failed:
    """Something in tracing or in a listener raised at this place; the forward goes on untouched."""

    where: str
    error: BaseException

    @property
    def line(self) -> str:
        """The error in one line."""
        return f"{type(self.error).__name__}: {self.error}"


Event = CallEnded | ActivationCalled | BranchesAdded | ResidualAdded | Padded | Overwriting | Failed


class Listener(Protocol):
    """Whoever a trace tells. Called outside of tracing and autograd; must not alter any tensor."""

    def on(self, event: Event) -> None:
        """Take note of one event."""
        ...
