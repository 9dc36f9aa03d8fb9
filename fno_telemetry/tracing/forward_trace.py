"""Follows a forward: which modules run, the lineage of each tensor, and which tensors are added.

Hooks report when modules start and end; a torch function mode sees every function called in between. Without
looking at names, this shows which modules are spectral convolutions (the innermost module in which a Fourier
transform and its inverse run), where a spectral branch is added to another branch with the same input, and
where that sum is added to the block's input. Each of these is an event for a `Listener`.
"""

from collections.abc import Mapping, Sequence
from functools import partial, reduce
from operator import or_
from typing import Any

import torch
from torch import nn

from fno_telemetry.isolation.tensor_values import count_writes
from fno_telemetry.tracing import fourier_calls, torch_functions
from fno_telemetry.tracing.appearances import Appearances
from fno_telemetry.tracing.axis_tracking import AxisTracker
from fno_telemetry.tracing.branch_reports import BranchReports
from fno_telemetry.tracing.branch_sums import ADDITIONS, Term, find_overwritten
from fno_telemetry.tracing.events import (
    ActivationCalled,
    CallEnded,
    Listener,
    Overwriting,
    Padded,
)
from fno_telemetry.tracing.followed_calls import FollowedCalls
from fno_telemetry.tracing.lineage import Lineage
from fno_telemetry.tracing.module_calls import Call
from fno_telemetry.tracing.nested_tensors import tensors_in
from fno_telemetry.tracing.torch_functions import EveryFunction
from fno_telemetry.tracing.uncalled_modules import UncalledModules
from fno_telemetry.tracing.value_flow import ValueFlow

_OF_BRANCHES = ("spectral", "local", "block")
"""The roles of modules that may be a branch, or hold one."""


class ForwardTrace(FollowedCalls):
    """Follows a forward function by function.

    `roles` by path overrule the detected ones; `axes` follows axes through every function.
    """

    def __init__(
        self,
        model: nn.Module,
        listener: Listener,
        roles: Mapping[str, str] | None = None,
        axes: AxisTracker | None = None,
        within: bool = False,
    ) -> None:
        super().__init__(model, listener, within)
        self.has_homeless_transforms = False  # whether Fourier transforms ran that no followed module called
        self.has_hidden_writes = False  # whether the forward wrote into a tensor and torch did not count it
        self._roles = roles or {}
        self._axes = axes
        self.uncalled = UncalledModules(self._model, self._paths)
        self._values = ValueFlow(self._model)
        no_branches = {path for path, role in self._roles.items() if role not in _OF_BRANCHES}
        self._branches = BranchReports(self._values.lineages, listener, no_branches)

    def _around_batch(self) -> EveryFunction:
        self._values.start()
        self._branches.start(self.calls)
        return EveryFunction(self._function_called)

    @property
    def _appearances(self) -> Appearances:
        return self._values.lineages.appearances

    def _batch_ended(self) -> None:
        self._branches.call_ended()

    def _forget(self) -> None:
        super()._forget()
        self._values.forget()
        self._branches.start(self.calls)

    def _running_modules(self) -> set[int]:
        return {id(call.module) for call in self._stack}

    def _started(self, call: Call, inputs: tuple[Any, ...]) -> None:
        entered = list(tensors_in(inputs))
        self._appearances.moment += 1
        self._appearances.note(entered, call.index, "input")
        call.writes_of_input = count_writes(entered[0]) if entered else None
        self.uncalled.note((), any(map(self._values.is_followed, entered)), self._running_modules(), calls=1)
        self._branches.tensors_used(entered)
        if call.module is self._model:
            self._values.note_input(entered)
        self._values.note_unseen(entered, call.parent)
        self._values.enter(call, entered)

    def _ended(self, call: Call, inputs: tuple[Any, ...], output: Any) -> None:
        self._appearances.moment += 1
        call.ended = self._appearances.moment
        self._appearances.note(tensors_in(output), call.index, "output")
        self._branches.call_ended(call)
        detected = "spectral" if call.transforms_back else ""
        call.spectral = self._roles.get(call.path, detected) == "spectral"
        if call.spectral:
            self._values.lineages.spectral |= call.bit
            call.held_input = next(tensors_in(inputs), None)
        elif call.parent is not None and call.path not in self._roles:
            call.parent.take_over_transforms(call)
        for inner in self.calls[call.index + 1 :]:
            inner.held_input = None
        given = list({id(tensor): tensor for tensor in tensors_in(inputs)}.values())
        for tensor in given:
            lineage = self._values.lineages.get(tensor)
            call.input_overwritten |= lineage is not None and not lineage.value & call.before.values
        if self._axes is not None and not call.spectral and not call.input_overwritten:
            self._follow_axes(self._axes, given, output)
        self._values.leave(call, given, output)
        self._listener.on(CallEnded(call, inputs, output, self._makers(call, output)))

    def _follow_axes(self, axes: AxisTracker, given: Sequence[torch.Tensor], output: Any) -> None:
        """Follow axes through a module, from the field that it was given first to what it returned."""
        followed = list(filter(self._values.is_followed, given))
        for tensor in tensors_in(output) if followed else ():
            axes.follow_module(followed[0], tensor)

    def _makers(self, call: Call, output: Any) -> int:
        """Return the makers of the output of an outermost call, 0 for a call inside another one."""
        if call.parent is None or call.parent.index:
            return 0
        known = [lineage for tensor in tensors_in(output) if (lineage := self._values.lineages.get(tensor))]
        return reduce(or_, (lineage.makers for lineage in known), 0)

    def _function_called(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self._running():
            return func(*args, **kwargs)
        name = torch_functions.name_of(func)
        parent = self._stack[-1]
        number = len(parent.functions)
        parent.functions.append(name)
        self._appearances.moment += 1
        terms: list[Term] = []
        target = find_overwritten(name, args, kwargs)
        writes: list[tuple[torch.Tensor, int]] = []
        if target is not None or name in ADDITIONS:
            adding = partial(self._adding, name, args, kwargs, target, number, writes)
            self.aside(parent.path, lambda: terms.extend(adding()))
        output = func(*args, **kwargs)
        self._appearances.moment += 1
        if target is None and isinstance(output, torch_functions.NO_TENSORS):
            return output
        self.has_hidden_writes |= any(tensor._version == before for tensor, before in writes)
        self.aside(
            parent.path, lambda: self._returned(parent, number, func, args, kwargs, output, tuple(terms))
        )
        return output

    def _adding(
        self,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        target: torch.Tensor | None,
        number: int,
        writes: list[tuple[torch.Tensor, int]],
    ) -> tuple[Term, ...]:
        """Return the terms of an addition before it runs; report the sums that it completes or overwrites.

        `writes` gets the tensors that are about to be overwritten, with torch's counts of their writes.
        """
        if name in ADDITIONS:
            self._values.note_unseen(tensors_in((args, kwargs)), self._stack[-1])
            self._appearances.note(tensors_in((args, kwargs)), self._stack[-1].index, "input", number)
        terms = self._branches.start_addition(name, args, kwargs)
        if target is not None:
            self._branches.tensor_overwritten(target)
            changing = self._appearances.overwrite(target)
            writes += [(tensor, tensor._version) for tensor in changing if not tensor.is_inference()]
            self._listener.on(Overwriting(target))
        return terms

    def _returned(
        self,
        parent: Call,
        number: int,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        output: Any,
        terms: tuple[Term, ...],
    ) -> None:
        name = torch_functions.name_of(func)
        entered = list(tensors_in((args, kwargs)))
        self._appearances.note(tensors_in(output), parent.index, "output", number)
        self._values.note_unseen(entered, parent)
        transforms = name in fourier_calls.INVERSE or name in fourier_calls.FORWARD
        self.has_homeless_transforms |= transforms and not parent.runs_now
        lineage = self._values.lineages.union(entered)
        self.uncalled.note(entered, lineage is not None, self._running_modules())
        if lineage is None and name in fourier_calls.INVERSE:
            # Written by code that cannot be followed.
            lineage = parent.seen
        if lineage is None or name in torch_functions.FRESH:
            self._values.note_constants(tensors_in(output))
            return
        if name == "pad":
            amounts = torch_functions.pad_amounts(args, kwargs)
            self._listener.on(Padded(amounts, parent.index, number))
        changed = [args[0]] if name == "__setitem__" else list(tensors_in(output))
        if changed and not terms:
            self._branches.tensors_used(entered)
        if self._axes is not None:
            followed = list(filter(self._values.is_followed, entered))
            self._axes.follow_function(func, args, kwargs, followed, list(tensors_in(output)))
        target = find_overwritten(name, args, kwargs)
        for tensor in self._values.note_result(name, args, entered, changed, target, lineage, parent):
            if terms:
                self._branches.hold(tensor, terms, parent)
        if name.strip("_") in torch_functions.SELECTING and lineage.values & parent.transformed:
            parent.selects = True
        if transforms and parent.runs_now:
            self._transformed(parent, name, args, kwargs, output, lineage)
        elif (
            name.rstrip("_") in torch_functions.ACTIVATIONS
            and isinstance(output, torch.Tensor)
            and parent.is_own_code
        ):
            name = name.rstrip("_")
            number = self._number(f"{parent.path}#{name}")
            formula = self._appearances.find(output)
            self._listener.on(ActivationCalled(parent, name, number, output, formula))

    def _transformed(
        self,
        parent: Call,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        output: torch.Tensor,
        lineage: Lineage,
    ) -> None:
        """Note a Fourier transform in the call that runs it."""
        call = fourier_calls.read_call(name, args, kwargs, output)
        if not parent.own_transforms:
            parent.calls_before_transforms = len(self.calls)
        if self._axes is not None:
            entered = next(tensors_in((args, kwargs)))
            self._axes.follow_transform(call, parent, entered, output)
        parent.own_transforms += 1
        made = self._values.lineages.get(output)
        if name in fourier_calls.INVERSE:
            parent.inverse_transforms.append(call)
            parent.transformed_back.append(lineage.values)
        else:
            parent.forward_transforms.append(call)
            parent.transformed |= made.value if made is not None else 0
