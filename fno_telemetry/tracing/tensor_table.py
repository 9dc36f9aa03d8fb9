"""A table with tensors as keys, which keeps no tensor alive."""

import weakref
from typing import Generic, TypeVar

import torch

T = TypeVar("T")


class TensorTable(Generic[T]):
    """A table with tensor objects as keys; holds weak references only, so no tensor lives longer."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[torch.Tensor], T]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, tensor: torch.Tensor) -> T | None:
        """Return the entry of this tensor object."""
        entry = self._entries.get(id(tensor))
        return entry[1] if entry is not None and entry[0]() is tensor else None

    def set(self, tensor: torch.Tensor, thing: T) -> None:
        """Set the entry of a tensor, kept until the tensor object is freed."""
        key = id(tensor)
        entries = self._entries

        def forget(gone: "weakref.ref[torch.Tensor]") -> None:
            entry = entries.get(key)
            # By now the address may belong to another tensor.
            if entry is not None and entry[0] is gone:
                del entries[key]

        entries[key] = (weakref.ref(tensor, forget), thing)

    def pop(self, tensor: torch.Tensor) -> T | None:
        """Remove and return the entry of the tensor."""
        thing = self.get(tensor)
        if thing is not None:
            del self._entries[id(tensor)]
        return thing

    def items(self) -> list[tuple[torch.Tensor, T]]:
        """Return the tensors that are still alive with their entries, oldest first."""
        entries = [(reference(), thing) for reference, thing in list(self._entries.values())]
        return [(tensor, thing) for tensor, thing in entries if tensor is not None]

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
