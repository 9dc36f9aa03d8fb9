"""Which terms of a sum are spectral, which local, and which one is the input of the block."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_, or_

import torch
from torch import nn

from fno_telemetry.growing_sums import Sum, Term
from fno_telemetry.lineage import members
from fno_telemetry.module_calls import Call


@dataclass(frozen=True, eq=False)
class Meeting:
    """What a sum says of a block; None for what it does not hold."""

    spectral: tuple[Call, ...]
    local: tuple[Call, ...]  # () also where the local operand was made without a module of its own
    branch: torch.Tensor  # the spectral operand
    beside: torch.Tensor | None  # the local operand, several added up
    before: torch.Tensor | None  # the block's own input
    after: torch.Tensor  # the sum, without terms that are neither of these

    @property
    def bits(self) -> int:
        """The spectral calls as a mask."""
        return reduce(or_, (call.bit for call in self.spectral))


def meeting(total: Sum, result: torch.Tensor, calls: Sequence[Call], spectral: int) -> Meeting | None:
    """Tell the terms apart; None when no branch meets anything here. `spectral` is a mask over `calls`."""
    masks = [term.lineage.calls for term in total.terms]
    only = reduce(or_, masks) & ~reduce(and_, masks) & spectral
    if not only:
        return None
    last = calls[only.bit_length() - 1]
    parallel = tuple(c for c in map(calls.__getitem__, members(only)) if _fed_alike(c, last, spectral))
    bits = reduce(or_, (call.bit for call in parallel))
    branches = [term for term in total.terms if term.lineage.calls & bits]
    ancestors = reduce(or_, (term.lineage.values for term in branches))
    local: dict[int, Call] = {}
    made: list[Term] = []
    inputs: list[Term] = []
    nameless: list[Term] = []
    for term in (term for term in total.terms if not term.lineage.calls & bits):
        beside = term.lineage.calls & ~last.before.calls
        if beside:
            outermost = _outermost(beside, last, calls)
            if _fed_alike(outermost[0], last, spectral):
                made.append(term)
                local |= {call.index: call for call in outermost}
        elif not last.before.calls & ~term.lineage.calls & spectral:
            # Not the input of an earlier block, then: this block's own, or something made of it in passing.
            (inputs if term.lineage.value & ancestors else nameless).append(term)
    inputs = sorted(inputs, key=lambda term: term.lineage.value)[-1:]
    if not made and not inputs:
        made = nameless
    if not made and not inputs:
        return None
    known = [*branches, *made, *inputs]
    return Meeting(
        spectral=parallel,
        local=tuple(local.values()),
        branch=_added(branches),
        beside=_added(made) if made else None,
        before=inputs[0].tensor if inputs else None,
        after=result if len(known) == len(total.terms) else _added(known),
    )


def _fed_alike(one: Call, other: Call, spectral: int) -> bool:
    """Whether both were fed by the same input, or by what a norm or the like made of it."""
    return not (one.before.calls ^ other.before.calls) & spectral


def _outermost(made: int, spectral: Call, calls: Sequence[Call]) -> tuple[Call, ...]:
    """Return the calls that made a local operand; norms and activations only where nothing else did."""
    found = [calls[index] for index in members(made)]
    siblings = [call for call in found if call.parent is spectral.parent]
    if not siblings:
        inner = {id(call) for call in found}
        siblings = [call for call in found if id(call.parent) not in inner]
    return tuple(call for call in siblings if role_by_class(call.module) is None) or tuple(siblings)


def role_by_class(module: nn.Module | None) -> str | None:
    """Return "activation" or "norm" for classes that can be nothing else."""
    name, home = type(module).__name__, type(module).__module__
    if home == "torch.nn.modules.activation" and name != "MultiheadAttention":
        return "activation"
    return "norm" if name.endswith(("Norm", "Norm1d", "Norm2d", "Norm3d")) else None


def _added(terms: Sequence[Term]) -> torch.Tensor:
    total = terms[0].tensor
    for term in terms[1:]:
        total = total + term.tensor
    return total
