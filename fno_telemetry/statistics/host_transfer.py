"""Brings the states of a capture to host memory, all that is on a device in one transfer."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch

_ALIGNED = 16
"""Bytes: the widest number, complex128. Every tensor starts at a multiple of it."""


def on_host(state: Any) -> Any:
    """Return a state, or a tuple, list or dict of states, with every tensor in host memory.

    All tensors of one device are moved in a single transfer, so pass all states of a capture at once. What
    has no tensor on a device is returned as it is.
    """
    by_device: dict[torch.device, list[torch.Tensor]] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.device.type != "cpu":
            by_device.setdefault(tensor.device, []).append(tensor)
        return tensor

    _map_tensors(state, note)
    if not by_device:
        return state
    arrived = {device: iter(transfer(tensors)) for device, tensors in by_device.items()}

    def take(tensor: torch.Tensor) -> torch.Tensor:
        return tensor if tensor.device.type == "cpu" else next(arrived[tensor.device])

    return _map_tensors(state, take)


def transfer(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return copies in host memory of tensors on one device, of any types, in a single transfer.

    On CUDA it goes through pinned memory, which the driver writes to directly.
    """
    packed = pack(tensors)
    on_cuda = packed.device.type == "cuda"
    host = torch.empty(packed.shape, dtype=torch.uint8, pin_memory=on_cuda)
    host.copy_(packed, non_blocking=on_cuda)
    if on_cuda:
        torch.cuda.current_stream(packed.device).synchronize()
    return unpack(host, tensors)


class Arriving:
    """A copy in host memory of a tensor on a device, which is as it is now when its values arrive.

    On CUDA nothing waits until `wait`; other devices give their values at once.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        on_cuda = tensor.device.type == "cuda"
        source = tensor.detach().resolve_conj().resolve_neg().contiguous()
        self._host = torch.empty(source.shape, dtype=source.dtype, device="cpu", pin_memory=on_cuda)
        self._host.copy_(source, non_blocking=on_cuda)
        self._arrival = None
        if on_cuda:
            self._arrival = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrival.record(torch.cuda.current_stream(tensor.device))

    @property
    def nbytes(self) -> int:
        """The size of the copy."""
        return self._host.nbytes

    def wait(self) -> torch.Tensor:
        """Return the copy as soon as its values are there."""
        if self._arrival is not None:
            self._arrival.synchronize()
        return self._host


def pack(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the bytes of all tensors, one after the other."""
    parts = []
    for tensor in tensors:
        own = tensor.resolve_conj().resolve_neg().reshape(-1).view(torch.uint8)
        parts += [own, own.new_zeros(-own.numel() % _ALIGNED)]
    return torch.cat(parts)


def unpack(packed: torch.Tensor, like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return the tensors that were packed, with types and shapes of `like`."""
    found, start = [], 0
    for tensor in like:
        size = tensor.numel() * tensor.element_size()
        own = packed[start : start + size].view(tensor.dtype).reshape(tensor.shape)
        # Each part is cloned, so that no tensor keeps the memory of all.
        found.append(own.clone())
        start += size + -size % _ALIGNED
    return found


def _map_tensors(state: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return the state with `change` applied to every tensor, always in the same order.

    What holds no other tensor than before is returned as the same object.
    """
    if isinstance(state, torch.Tensor):
        return change(state)
    if isinstance(state, tuple | list):
        parts = [_map_tensors(part, change) for part in state]
        same = all(one is other for one, other in zip(parts, state, strict=True))
        return state if same else type(state)(parts)
    if isinstance(state, dict):
        changed = {key: _map_tensors(part, change) for key, part in state.items()}
        return state if all(changed[key] is state[key] for key in state) else changed
    cls: Any = type(state)
    if names := _field_names(cls):
        before = [getattr(state, name) for name in names]
        moved = [_map_tensors(part, change) for part in before]
        if all(one is other for one, other in zip(moved, before, strict=True)):
            return state
        return dataclasses.replace(state, **dict(zip(names, moved, strict=True)))
    return state


@cache
def _field_names(cls: Any) -> tuple[str, ...]:
    """Return the fields of a dataclass that its constructor takes; () of any other class."""
    if not dataclasses.is_dataclass(cls):
        return ()
    return tuple(each.name for each in dataclasses.fields(cls) if each.init)
