"""Whether values on a GPU are finite, found out without waiting for the GPU.

The answer is computed there, in the order of its other work, and copied into host memory. A later question
finds it there or does not: nothing waits for it.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from fno_telemetry.tracing.nested_tensors import tensors_in
from fno_telemetry.watching.forward_state import ForwardState

MOST_WAITING = 100
"""Checks that wait for an answer; of more, the oldest ones are forgotten."""


What = Literal["output", "loss"]


class Arrival(Protocol):
    """Tells whether a copy has arrived, such as `torch.cuda.Event`."""

    def query(self) -> bool:
        """Return whether it has, at once."""
        ...


Transfer = Callable[[torch.Tensor], tuple[torch.Tensor, Arrival]]
"""Begins to copy a tensor into host memory, and returns the copy and what tells when it has arrived."""


def _begin_from_cuda(tensor: torch.Tensor) -> tuple[torch.Tensor, Arrival]:
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    copy.copy_(tensor, non_blocking=True)
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(tensor.device))
    return copy, event


TRANSFERS: dict[str, Transfer] = {"cuda": _begin_from_cuda}
"""By the type of a device; tensors on others are not checked here."""


class FiniteCheck:
    """The question whether all numbers of some tensors are finite."""

    def __init__(self, tensors: Mapping[torch.device, list[torch.Tensor]]) -> None:
        self._copies = []
        with torch.no_grad():
            for device, own in tensors.items():
                flags = torch.stack([torch.isfinite(tensor.detach()).all() for tensor in own])
                self._copies.append(TRANSFERS[device.type](flags))

    @property
    def answer(self) -> bool | None:
        """Whether they are; None while that is not known."""
        if not all(arrival.query() for _, arrival in self._copies):
            return None
        return all(bool(copy.all()) for copy, _ in self._copies)


def begin_check(value: object) -> FiniteCheck | None:
    """Begin to check the floating point tensors on a GPU in a value; None where there is nothing to check."""
    by_device: dict[torch.device, list[torch.Tensor]] = {}
    for tensor in tensors_in(value):
        measurable = (tensor.is_floating_point() or tensor.is_complex()) and tensor.layout is torch.strided
        if measurable and tensor.device.type in TRANSFERS:
            by_device.setdefault(tensor.device, []).append(tensor)
    if not by_device or (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()):
        return None
    return FiniteCheck(by_device)


@dataclass
class Pending:
    """A check that waits for its answer; `state` is that of a forward that can still be measured again."""

    what: What
    step: int
    check: FiniteCheck
    state: ForwardState | None


class PendingChecks:
    """The checks whose answers are not known yet, in the order in which they were begun."""

    def __init__(self) -> None:
        self._waiting: deque[Pending] = deque(maxlen=MOST_WAITING)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, what: What, step: int, value: object, state: ForwardState | None) -> bool:
        """Begin to check a value of this step; return whether there is anything to check."""
        check = begin_check(value)
        if check is not None:
            self._waiting.append(Pending(what, step, check, state))
        return check is not None

    def find_nonfinite(self) -> Pending | None:
        """Return the first one that is known not to be finite, and forget those whose answers are known."""
        while self._waiting and (answer := self._waiting[0].check.answer) is not None:
            pending = self._waiting.popleft()
            if not answer:
                return pending
        return None

    def release_states(self) -> None:
        """Forget how to run the forwards again, since the parameters change."""
        for pending in self._waiting:
            pending.state = None

    def clear(self) -> None:
        """Forget all."""
        self._waiting.clear()
