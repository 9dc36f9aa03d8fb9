"""Reports each branch sum and each residual sum of a forward once, when nothing more is added to it."""

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

import torch

from fno_telemetry.tracing.appearances import Formula
from fno_telemetry.tracing.branch_sums import ADDITIONS, BranchSum, OpenSums, Sum, Term, find_branch_sum
from fno_telemetry.tracing.events import BranchesAdded, Listener, ResidualAdded
from fno_telemetry.tracing.lineage import Lineage, LineageTable
from fno_telemetry.tracing.module_calls import Call


class BranchReports:
    """Collects the sums of one forward.

    The modules at the paths `no_branches` belong to no branch, by a role that was given by hand.
    """

    def __init__(self, lineages: LineageTable, listener: Listener, no_branches: Container[str] = ()) -> None:
        self._lineages = lineages
        self._listener = listener
        self._no_branches = no_branches
        self._sums = OpenSums()
        self._calls: Sequence[Call] = ()
        self._added = 0  # spectral calls whose branch was added to something
        self._branch_sums: list[int] = []  # the spectral calls of each sum with a local branch
        self._updated = 0  # spectral calls whose block was added to its input

    def start(self, calls: Sequence[Call]) -> None:
        """Forget everything; `calls` grows with the forward that begins."""
        self._calls = calls
        self._sums.clear()
        self._branch_sums.clear()
        self._added = self._updated = 0

    def tensors_used(self, tensors: Sequence[torch.Tensor]) -> None:
        """Report the sums that these tensors hold, which were used for something else than an addition."""
        self._report(self._sums.take_used(tensors))

    def tensor_overwritten(self, target: torch.Tensor) -> None:
        """Report the sums that are about to be overwritten, or that have a term in that memory."""
        self._report(self._sums.take_overwritten(target))

    def call_ended(self, call: Call | None = None) -> None:
        """Report the sums that were made in the forward of this call; all sums if none is given."""
        self._report(self._sums.take_ended(call))

    def start_addition(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Term, ...]:
        """Return the terms of an addition before it runs; report the sums to which it adds another block."""
        if name in ADDITIONS:
            operands = [one for one in (*args, *kwargs.values()) if isinstance(one, torch.Tensor)]
            if name.startswith("addcmul"):
                self._report(self._sums.take_used(operands[1:]))
            self._report(self._sums.take_finished(operands[:2], self._lineages, self._is_finished))
        return self._sums.collect_terms(name, args, kwargs, self._lineages)

    def hold(self, tensor: torch.Tensor, terms: tuple[Term, ...], parent: Call) -> None:
        """Remember that `tensor` is the sum of these terms, made in the forward of `parent`."""
        self._sums.hold(tensor, terms, parent)

    def _is_finished(self, held: Sum, lineage: Lineage) -> bool:
        """Whether this is a whole branch sum, and what is added to it comes from another block."""
        own = self._find_branch_sum(held)
        if own is None:
            return False
        other = lineage.calls & self._lineages.spectral & ~own.bits & ~own.spectral[-1].before.calls
        return bool(other & self._added)

    def _find_branch_sum(self, total: Sum) -> BranchSum | None:
        return find_branch_sum(total, self._calls, self._lineages.spectral, self._lineages, self._no_branches)

    def _report(self, sums: Iterable[Sum]) -> None:
        for total in sums:
            branch_sum = self._find_branch_sum(total)
            if branch_sum is None:
                continue
            spectral, bits = branch_sum.spectral, branch_sum.bits
            if branch_sum.local_operand is not None and not self._added & bits:
                self._branch_sums.append(bits)
                self._listener.on(
                    BranchesAdded(
                        spectral=spectral,
                        local=branch_sum.local,
                        parent=total.parent,
                        s=branch_sum.spectral_operand,
                        t=branch_sum.local_operand,
                        order=total.order,
                        before=self._input_of(spectral[-1]),
                        result=total.result,
                        spans_blocks=branch_sum.spans_blocks,
                        formulas=self._formulas(branch_sum, total),
                    )
                )
            self._added |= bits
            for call in spectral:
                call.held_input = None
            if branch_sum.before is not None and not self._updated & bits:
                self._updated |= bits
                # An update made by several blocks together, as in attention, belongs to none of them.
                if sum(bool(other & bits) for other in self._branch_sums) > 1:
                    continue
                before, after, order = branch_sum.before, branch_sum.after, total.order
                formulas = branch_sum.before_formula, branch_sum.after_formula
                self._listener.on(
                    ResidualAdded(spectral, total.parent, before, after, order, total.result, formulas)
                )

    def _formulas(self, branch_sum: BranchSum, total: Sum) -> tuple[Formula, ...]:
        find = self._lineages.appearances.find
        before = self._input_of(branch_sum.spectral[-1])
        return (
            branch_sum.spectral_formula,
            branch_sum.local_formula,
            () if before is None else find(before),
            find(total.result),
        )

    def _input_of(self, spectral: Call) -> torch.Tensor | None:
        """Return the input of a spectral call, None if it has another value by now."""
        tensor = spectral.held_input
        lineage = None if tensor is None else self._lineages.get(tensor)
        return tensor if lineage is not None and lineage.value & spectral.before.values else None
