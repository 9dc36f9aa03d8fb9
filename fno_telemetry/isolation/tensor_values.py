"""The value, the flags and the hooks of a tensor, kept so that they can be put back into the same tensor."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import torch


class CopyBudget:
    """The number of bytes that may still be copied."""

    def __init__(self, size: int) -> None:
        self._left = size

    def take(self, size: int) -> bool:
        """Whether `size` bytes are left; if so, they are taken."""
        if size > self._left:
            return False
        self._left -= size
        return True


class TensorValue:
    """A tensor as it was: its memory, a copy of its values, and the flags and hooks that autograd keeps.

    Without a copy (on the meta device, or beyond the budget) torch's count of writes tells whether it
    changed, and only the rest can be put back.
    """

    def __init__(self, tensor: torch.Tensor, budget: CopyBudget | None = None) -> None:
        self.tensor = tensor
        self._flags = _read_flags(tensor)
        self._hooks = [(name, table, _entries(table)) for name, table in _read_hooks(tensor)]
        self._attributes = dict(vars(tensor))
        # Whoever writes `.data` gives the tensor other memory, which may be that of another tensor.
        self._memory = tensor.detach() if _is_plain(tensor) else None
        size = tensor.numel() * tensor.element_size()  # nested tensors have no shape, but both of these
        copied = not tensor.is_meta and (budget is None or budget.take(size))
        self._copy = tensor.detach().clone() if copied else None
        self._writes = count_writes(tensor)

    def changed(self) -> bool:
        """Whether a value, a flag, a hook or an attribute differs."""
        return (
            self._is_elsewhere()
            or self._values_changed()
            or self._hooks_changed()
            or not _same_flags(_read_flags(self.tensor), self._flags)
            or not _same_entries(_entries(vars(self.tensor)), _entries(self._attributes))
        )

    def put_back(self) -> None:
        """Put back what differs; an unchanged tensor is not written, so that its graph stays valid."""
        tensor = self.tensor
        if self._flags is not None and not tensor.is_leaf:
            # A forward with gradients that wrote into the tensor attached it to a graph.
            tensor.detach_()
        # A tensor made in inference mode can be written in that mode only.
        with torch.inference_mode() if tensor.is_inference() else nullcontext():
            if self._memory is not None and self._is_elsewhere():
                # The old gradient may have another type.
                tensor.grad = None
                tensor.data = self._memory
            if self._copy is not None and self._values_changed():
                with torch.no_grad():
                    tensor.copy_(self._copy)
                self._writes = count_writes(tensor)
        if self._flags is not None and not _same_flags(_read_flags(tensor), self._flags):
            requires_grad, tensor.grad = self._flags
            tensor.requires_grad_(requires_grad)
        if self._hooks_changed():
            for name, table, entries in self._hooks:
                if table is not None:
                    table.clear()
                    table.update(entries)
                setattr(tensor, name, table)
        if not _same_entries(_entries(vars(tensor)), _entries(self._attributes)):
            vars(tensor).clear()
            vars(tensor).update(self._attributes)

    def _is_elsewhere(self) -> bool:
        """Whether the tensor has other memory, another type or another shape than before."""
        return self._memory is not None and _describe_memory(self.tensor) != _describe_memory(self._memory)

    def _hooks_changed(self) -> bool:
        now = _read_hooks(self.tensor)
        return any(
            table is not before or not _same_entries(_entries(table), entries)
            for (_, table), (_, before, entries) in zip(now, self._hooks, strict=True)
        )

    def _values_changed(self) -> bool:
        if self._copy is None or not _is_plain(self.tensor):
            return count_writes(self.tensor) != self._writes
        return self._is_elsewhere() or not torch.equal(_bytes(self.tensor), _bytes(self._copy))


@contextmanager
def preserve_flags(tensors: Iterable[torch.Tensor]) -> Iterator[None]:
    """Put back memory, flags, hooks and attributes of these tensors when the block ends, but not values."""
    kept = []
    for tensor in tensors:
        with suppress(Exception):  # a class of tensors may refuse anything
            kept.append(TensorValue(tensor, CopyBudget(0)))
    try:
        yield
    finally:
        for value in kept:
            with suppress(Exception):
                value.put_back()


_Flags = tuple[bool, torch.Tensor | None]


def _read_flags(tensor: torch.Tensor) -> _Flags | None:
    """Return `requires_grad` and `.grad`; None unless it is a leaf, which alone has these for itself."""
    return (tensor.requires_grad, tensor.grad) if tensor.is_leaf else None


def _same_flags(now: _Flags | None, before: _Flags | None) -> bool:
    if now is None or before is None:
        return now is before
    return now[0] == before[0] and now[1] is before[1]


_Entries = tuple[tuple[Any, Any], ...]


def _read_hooks(tensor: torch.Tensor) -> list[tuple[str, dict[Any, Any] | None]]:
    """Return the tables of hooks by name; a tensor of a graph keeps them in the graph."""
    if not tensor.is_leaf:
        return [("_backward_hooks", None), ("_post_accumulate_grad_hooks", None)]
    names = ("_backward_hooks", "_post_accumulate_grad_hooks")
    return [(name, getattr(tensor, name, None)) for name in names]


def _entries(table: dict[Any, Any] | None) -> _Entries:
    return () if table is None else tuple(table.items())


def _same_entries(now: _Entries, before: _Entries) -> bool:
    return len(now) == len(before) and all(
        key == known and value is held for (key, value), (known, held) in zip(now, before, strict=True)
    )


def _describe_memory(tensor: torch.Tensor) -> tuple[object, ...]:
    """Return what tells the memory of one plain tensor from that of another one."""
    place = (tensor.device, tensor.data_ptr(), tensor.storage_offset())
    return (*place, tensor.dtype, tuple(tensor.shape), tensor.stride(), tensor.is_conj(), tensor.is_neg())


def count_writes(tensor: torch.Tensor) -> int:
    """Return torch's count, which misses writes through `.data` and in inference mode."""
    return 0 if tensor.is_inference() else tensor._version


def find_storage(tensor: torch.Tensor) -> int:
    """Return the address of a tensor's memory; 0 if it has none that is known."""
    try:
        return tensor.untyped_storage().data_ptr()
    except Exception:  # noqa: BLE001 - sparse, nested and foreign tensors have no storage
        return 0


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether its bits can be compared: not nested, sparse, quantized or of another class of tensors."""
    return (
        tensor.layout is torch.strided
        and not (tensor.is_nested or tensor.is_quantized or tensor.is_meta)
        and type(tensor).__torch_dispatch__ is torch.Tensor.__torch_dispatch__
    )


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    """Return the bytes as the longest whole numbers that fit, of which fewer have to be compared."""
    flat = tensor.detach().resolve_conj().resolve_neg().contiguous().view(-1)
    for whole in (torch.int64, torch.int32):
        if flat.numel() * flat.element_size() % whole.itemsize == 0 == flat.data_ptr() % whole.itemsize:
            return flat.view(torch.uint8).view(whole)
    return flat.view(torch.uint8)
