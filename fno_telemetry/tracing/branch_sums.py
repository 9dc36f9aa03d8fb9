"""Branch sums: collected term by term, then sorted into spectral terms, local terms and the block's input.

`x + s + l` is one sum of three terms, in any order, in place or not.
"""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_, or_
from typing import Any, NamedTuple

import torch
from torch import nn

from fno_telemetry.records import Role
from fno_telemetry.tracing.appearances import Formula, Product
from fno_telemetry.tracing.lineage import Lineage, LineageTable, find_origin, members
from fno_telemetry.tracing.module_calls import Call
from fno_telemetry.tracing.tensor_memory import share_memory
from fno_telemetry.tracing.tensor_shapes import read_shape
from fno_telemetry.tracing.tensor_table import TensorTable

ADDITIONS = frozenset({"add", "add_", "sub", "sub_", "lerp", "lerp_", "addcmul", "addcmul_"})
"""Functions that add two tensors, each times a factor; `addcmul` makes the second of two."""


class Term(NamedTuple):
    """One operand with its value at the time of the addition, multiplied by its sign and scale.

    `origin` is the value before that multiplication; `formula` has one product, none if it is not known.
    """

    tensor: torch.Tensor
    lineage: Lineage
    origin: int
    formula: Formula = ()


@dataclass(frozen=True, eq=False)
class Sum:
    """The terms that were added in the forward of the call `parent`."""

    terms: tuple[Term, ...]
    parent: Call
    result: torch.Tensor  # kept alive, because code that is not followed may be its only use
    order: int  # counts the additions of a batch


class OpenSums:
    """Sums that were used for nothing but further additions so far, by the tensor that holds them.

    Their terms are kept alive: a sum must be removed at its first other use, or when its parent call ends.
    """

    def __init__(self) -> None:
        self._sums: TensorTable[Sum] = TensorTable()
        self._additions = 0

    def collect_terms(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], lineages: LineageTable
    ) -> tuple[Term, ...]:
        """Return the terms of an addition before it runs; () unless it adds two tensors of known lineage."""
        if name not in ADDITIONS:
            return ()
        if name.startswith("addcmul"):
            return self._collect_product(name, args, kwargs, lineages)
        operands = [*args, *(kwargs[key] for key in ("input", "other", "end") if key in kwargs)][:2]
        if len(operands) < 2:
            return ()
        if any(not isinstance(o, torch.Tensor) or lineages.get(o) is None for o in operands):
            return ()
        first, second = operands
        if first is second:
            return ()
        target = find_overwritten(name, args, kwargs)
        factors = _find_factors(name, args, kwargs)
        return (
            *self._terms(first, factors[0], target, lineages),
            *self._terms(second, factors[1], target, lineages),
        )

    def _collect_product(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], lineages: LineageTable
    ) -> tuple[Term, ...]:
        """Return the terms of `torch.addcmul`: its first operand, and the product of the two others."""
        first, *factors = [*args, *(kwargs[k] for k in ("input", "tensor1", "tensor2") if k in kwargs)][:3]
        if any(not isinstance(one, torch.Tensor) for one in (first, *factors)):
            return ()
        lineage = lineages.union(factors)
        if lineage is None or lineages.get(first) is None:
            return ()
        product, value = factors[0] * factors[1], kwargs.get("value", 1)
        origin = find_origin(lineages.operands(factors), read_shape(product))
        formula = _multiply(*map(lineages.appearances.find, factors), (Product((), (value,)),))
        made = Term(product * value, lineage._replace(value=0), origin, formula)
        return (*self._terms(first, 1, find_overwritten(name, args, kwargs), lineages), made)

    def hold(self, tensor: torch.Tensor, terms: tuple[Term, ...], parent: Call) -> None:
        """Remember that `tensor` is the sum of the terms."""
        self._sums.set(tensor, Sum(terms, parent, tensor, self._additions))
        self._additions += 1

    def take_used(self, tensors: Sequence[torch.Tensor]) -> Iterator[Sum]:
        """Remove and yield the sums that these tensors hold."""
        for tensor in tensors if len(self._sums) else ():
            if (taken := self._sums.pop(tensor)) is not None:
                yield taken

    def take_finished(
        self,
        operands: Sequence[torch.Tensor],
        lineages: LineageTable,
        is_finished: Callable[[Sum, Lineage], bool],
    ) -> Iterator[Sum]:
        """Remove and yield the sums among two operands that the other operand is no part of."""
        held = [self._sums.get(operand) for operand in operands]
        for one, other in zip(held, reversed(operands), strict=True):
            lineage = lineages.get(other)
            if one is not None and lineage is not None and is_finished(one, lineage):
                self._sums.pop(one.result)
                yield one

    def take_overwritten(self, target: torch.Tensor) -> Iterator[Sum]:
        """Remove and yield the sums that this tensor holds, and those with a term in its memory."""
        for tensor, held in self._sums.items():
            if tensor is target or any(share_memory(term.tensor, target) for term in held.terms):
                self._sums.pop(tensor)
                yield held

    def take_ended(self, parent: Call | None = None) -> Iterator[Sum]:
        """Remove and yield the sums made in this parent call; all sums if none is given."""
        for tensor, held in self._sums.items():
            if parent is None or held.parent is parent:
                self._sums.pop(tensor)
                yield held

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
            # An addition in place overwrites an operand that is still to be measured.
            kept = operand.clone() if target is operand else operand
            lineage = lineages.get(operand) or Lineage()
            terms = (Term(kept, lineage, lineage.value, lineages.appearances.find(operand)),)
        if isinstance(factor, int | float) and factor == 1:
            return terms
        by: Formula = (Product((), (factor,)),) if isinstance(factor, int | float) else ()
        return tuple(
            Term(t.tensor * factor, t.lineage._replace(value=0), t.origin, _multiply(t.formula, by))
            for t in terms
        )


def _multiply(*formulas: Formula) -> Formula:
    """Return the formula of the product of tensors, each of which is one product; () if one is not known."""
    if any(len(formula) != 1 for formula in formulas):
        return ()
    products = [formula[0] for formula in formulas]
    tensors = tuple(tensor for product in products for tensor in product.tensors)
    return (Product(tensors, tuple(number for product in products for number in product.numbers)),)


def _find_factors(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the factors of both operands of an addition: numbers or tensors."""
    if name.startswith("lerp"):
        weight = kwargs["weight"] if "weight" in kwargs else args[2]
        return 1 - weight, weight
    alpha = kwargs.get("alpha", 1)
    return 1, -alpha if name.startswith("sub") else alpha


def find_overwritten(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.Tensor | None:
    """Return the tensor that a function of this name writes into, None if it returns a new one."""
    in_place = name == "__setitem__" or (name.endswith("_") and not name.startswith(("__", "requires_grad")))
    target = args[0] if args and (in_place or kwargs.get("inplace") is True) else kwargs.get("out")
    return target if isinstance(target, torch.Tensor) else None


@dataclass(frozen=True, eq=False)
class BranchSum:
    """The parts of a sum in a block; None for a part that the sum does not have."""

    spectral: tuple[Call, ...]
    local: tuple[Call, ...]  # () also if no module produced the local operand
    spectral_operand: torch.Tensor
    local_operand: torch.Tensor | None  # the sum of all local terms
    before: torch.Tensor | None  # the block's own input
    after: torch.Tensor  # the sum of these, without any other terms
    spans_blocks: bool  # whether another term is the input of an earlier block
    spectral_formula: Formula
    local_formula: Formula
    before_formula: Formula
    after_formula: Formula

    @property
    def bits(self) -> int:
        """The spectral calls as a mask."""
        return reduce(or_, (call.bit for call in self.spectral))


def find_branch_sum(
    total: Sum,
    calls: Sequence[Call],
    spectral: int,
    lineages: LineageTable,
    no_branches: Container[str] = (),
) -> BranchSum | None:
    """Sort the terms of a sum; None unless it adds a spectral branch. `spectral` is a mask over `calls`.

    The modules at the paths `no_branches` belong to no branch.

    The branches of a block have the same input: what entered both comes from one value, by steps that take
    no second field. What comes from elsewhere, such as a grid or an embedding, belongs to no branch.
    """
    masks = [term.lineage.calls for term in total.terms]
    only = reduce(or_, masks) & ~reduce(and_, masks) & spectral
    if not only:
        return None
    last = calls[only.bit_length() - 1]
    block_input = lineages.trace_back(last.entered)

    def shares_input(call: Call) -> bool:
        if call.path in no_branches:
            return False
        return call is last or bool(lineages.trace_back(call.entered) & block_input)

    parallel = tuple(call for call in map(calls.__getitem__, members(only)) if shares_input(call))
    bits = reduce(or_, (call.bit for call in parallel))
    branches = [term for term in total.terms if term.lineage.calls & bits]
    ancestors = reduce(or_, (term.lineage.values for term in branches))
    local: dict[int, Call] = {}
    made: list[Term] = []
    inputs: list[Term] = []
    other: list[Term] = []
    spans_blocks = False
    for term in (term for term in total.terms if not term.lineage.calls & bits):
        if made_by := term.lineage.calls & ~last.before.calls:
            if fed := [call for call in _outermost(made_by, last, calls) if shares_input(call)]:
                made.append(term)
                local |= {call.index: call for call in fed}
        elif term.lineage.value & block_input:
            inputs.append(term)
        elif last.before.calls & ~term.lineage.calls & spectral:
            spans_blocks |= bool(term.lineage.value & ancestors)
        elif term.lineage.value & ancestors:
            inputs.append(term)
        elif lineages.trace_back(term.origin) & block_input:
            # Computed from the block's input by functions.
            other.append(term)
    inputs = sorted(inputs, key=lambda term: term.lineage.value)[-1:]
    if not made and not inputs:
        made = other
    if not made and not inputs:
        return None
    known = [*branches, *made, *inputs]
    whole = len(known) == len(total.terms)
    return BranchSum(
        spectral=parallel,
        local=tuple(local.values()),
        spectral_operand=_add_up(branches),
        local_operand=_add_up(made) if made else None,
        before=inputs[0].tensor if inputs else None,
        after=total.result if whole else _add_up(known),
        spans_blocks=spans_blocks,
        spectral_formula=_add_formulas(branches),
        local_formula=_add_formulas(made),
        before_formula=_add_formulas(inputs),
        after_formula=lineages.appearances.find(total.result) if whole else _add_formulas(known),
    )


def _outermost(made: int, spectral: Call, calls: Sequence[Call]) -> tuple[Call, ...]:
    """Return the calls that made a local operand; norms and activations only if no other call did."""
    makers = [calls[index] for index in members(made)]
    siblings = [call for call in makers if call.parent is spectral.parent]
    if not siblings:
        inner = {id(call) for call in makers}
        siblings = [call for call in makers if id(call.parent) not in inner]
    return tuple(call for call in siblings if role_by_class(call.module) is None) or tuple(siblings)


def role_by_class(module: nn.Module | None) -> Role | None:
    """Return "activation" or "norm" for a class that is certainly one, None for any other."""
    name, home = type(module).__name__, type(module).__module__
    if home == "torch.nn.modules.activation" and name != "MultiheadAttention":
        return "activation"
    return "norm" if name.endswith(("Norm", "Norm1d", "Norm2d", "Norm3d")) else None


def _add_formulas(terms: Sequence[Term]) -> Formula:
    """Return the formula of the sum of these terms; () if that of one is not known."""
    known = all(term.formula for term in terms)
    return tuple(product for term in terms for product in term.formula) if known else ()


def _add_up(terms: Sequence[Term]) -> torch.Tensor:
    total = terms[0].tensor
    for term in terms[1:]:
        total = total + term.tensor
    return total
