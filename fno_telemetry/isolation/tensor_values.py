"""The value and the flags of a tensor, kept so that they can be put back into the same tensor."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

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
    """A tensor as it was: a copy of its values, and the flags that autograd keeps.

    Without a copy (on the meta device, or beyond the budget) torch's count of writes tells whether it
    changed, and only the flags can be put back.
    """

    def __init__(self, tensor: torch.Tensor, budget: CopyBudget | None = None) -> None:
        self.tensor = tensor
        self._flags = _read_flags(tensor)
        size = tensor.numel() * tensor.element_size()  # nested tensors have no shape, but both of these
        copied = not tensor.is_meta and (budget is None or budget.take(size))
        self._copy = tensor.detach().clone() if copied else None
        self._writes = _count_writes(tensor)

    def changed(self) -> bool:
        """Whether a value or a flag differs."""
        return self._values_changed() or not _same_flags(_read_flags(self.tensor), self._flags)

    def put_back(self) -> None:
        """Put back what differs; an unchanged tensor is not written, so that its graph stays valid."""
        tensor = self.tensor
        if self._flags is not None and not tensor.is_leaf:
            # A forward with gradients that wrote into the tensor attached it to a graph.
            tensor.detach_()
        if self._copy is not None and self._values_changed():
            with torch.no_grad():
                if _is_plain(tensor) and tensor.shape != self._copy.shape:
                    tensor.resize_(self._copy.shape)
                tensor.copy_(self._copy)
            self._writes = _count_writes(tensor)
        if self._flags is not None and not _same_flags(_read_flags(tensor), self._flags):
            requires_grad, tensor.grad = self._flags
            tensor.requires_grad_(requires_grad)

    def _values_changed(self) -> bool:
        if self._copy is None or not _is_plain(self.tensor):
            return _count_writes(self.tensor) != self._writes
        return self.tensor.shape != self._copy.shape or not torch.equal(
            _bytes(self.tensor), _bytes(self._copy)
        )


@contextmanager
def preserve_flags(tensors: Iterable[torch.Tensor]) -> Iterator[None]:
    """Put back `requires_grad` and `.grad` of these tensors when the block ends, but not their values."""
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


def _count_writes(tensor: torch.Tensor) -> int:
    """Return torch's count, which misses writes through `.data` and in inference mode."""
    return 0 if tensor.is_inference() else tensor._version


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether its bits can be compared: not nested, sparse, quantized or of another class of tensors."""
    return (
        tensor.layout is torch.strided
        and not (tensor.is_nested or tensor.is_quantized or tensor.is_meta)
        and type(tensor).__torch_dispatch__ is torch.Tensor.__torch_dispatch__
    )


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().view(-1).view(torch.uint8)
