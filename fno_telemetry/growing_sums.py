"""Sums while they grow: `x + s + l` is one sum of three terms, in any order, in place or not."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from fno_telemetry.function_transforms import is_wrapped
from fno_telemetry.lineage import Lineage, LineageTable, TensorTable
from fno_telemetry.module_calls import Call

ADDITIONS = {"add": 1, "add_": 1, "sub": -1, "sub_": -1}
"""Functions that add two tensors, and the sign of the second."""


class Term(NamedTuple):
    """One operand, as it was when it was added, its sign and scale applied."""

    tensor: torch.Tensor
    lineage: Lineage


@dataclass(frozen=True, eq=False)
class Sum:
    """What was added up in the forward of `frame`."""

    terms: tuple[Term, ...]
    frame: Call


class GrowingSums:
    """The sums that were not used yet for anything but more additions, by the tensor that holds them.

    The terms are kept alive until then: a sum has to be `taken` by its first use or the end of its frame.
    """

    def __init__(self) -> None:
        self._sums: TensorTable[Sum] = TensorTable()

    def grow(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], lineages: LineageTable
    ) -> tuple[Term, ...]:
        """Return the terms of the addition that is about to be done; () when it adds no two known tensors."""
        sign = ADDITIONS.get(name)
        operands = [*args, *(kwargs[key] for key in ("input", "other") if key in kwargs)][:2]
        if sign is None or len(operands) < 2:
            return ()
        if any(not isinstance(o, torch.Tensor) or lineages.get(o) is None for o in operands):
            return ()
        first, second = operands
        if first is second:
            return ()
        target = overwritten(name, args, kwargs)
        return (
            *self._terms(first, 1, target, lineages),
            *self._terms(second, sign * kwargs.get("alpha", 1), target, lineages),
        )

    def hold(self, tensor: torch.Tensor, terms: tuple[Term, ...], frame: Call) -> None:
        """Remember that `tensor` is the sum of the terms."""
        self._sums.set(tensor, Sum(terms, frame))

    def used(self, tensors: Sequence[torch.Tensor]) -> Iterator[tuple[torch.Tensor, Sum]]:
        """Take the sums that these tensors are."""
        for tensor in tensors if len(self._sums) else ():
            if (taken := self._sums.pop(tensor)) is not None:
                yield tensor, taken

    def about_to_change(self, target: torch.Tensor) -> Iterator[tuple[torch.Tensor, Sum]]:
        """Take the sums that this tensor is, or that have a term in its memory."""
        for tensor, held in self._sums.items():
            if tensor is target or any(share_memory(term.tensor, target) for term in held.terms):
                self._sums.pop(tensor)
                yield tensor, held

    def ended(self, frame: Call | None = None) -> Iterator[tuple[torch.Tensor, Sum]]:
        """Take the sums that were made in this frame; all of them when no frame is given."""
        for tensor, held in self._sums.items():
            if frame is None or held.frame is frame:
                self._sums.pop(tensor)
                yield tensor, held

    def clear(self) -> None:
        """Forget everything."""
        self._sums.clear()

    def _terms(
        self, operand: torch.Tensor, factor: Any, target: torch.Tensor | None, lineages: LineageTable
    ) -> tuple[Term, ...]:
        held = self._sums.pop(operand)
        if held is not None:
            terms = held.terms
        else:
            # An addition in place overwrites an operand that is still to be looked at.
            kept = operand.clone() if target is operand else operand
            terms = (Term(kept, lineages.get(operand) or Lineage()),)
        if isinstance(factor, int | float) and factor == 1:
            return terms
        return tuple(Term(t.tensor * factor, t.lineage._replace(value=0)) for t in terms)


def overwritten(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.Tensor | None:
    """Return the tensor that a function of this name writes into, None when it makes a new one."""
    in_place = name == "__setitem__" or (name.endswith("_") and not name.startswith(("__", "requires_grad")))
    target = args[0] if args and (in_place or kwargs.get("inplace") is True) else kwargs.get("out")
    return target if isinstance(target, torch.Tensor) else None


def share_memory(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether both lie in one piece of memory, be it at different places in it."""
    if one is other or not (_has_storage(one) and _has_storage(other)):
        return one is other
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def _has_storage(tensor: torch.Tensor) -> bool:
    return tensor.layout is torch.strided and not is_wrapped(tensor)
