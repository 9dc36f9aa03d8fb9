"""Follows a forward: which modules run, the lineage of each tensor, and which tensors are added.

Hooks report when modules start and end; a torch function mode sees every function called in between. Without
looking at names, this shows which modules are spectral convolutions (the innermost module in which a Fourier
transform and its inverse run), where a spectral branch is added to another branch with the same input, and
where that sum is added to the block's input. Each of these is an event for a `Listener`.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from operator import or_
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from fno_telemetry.isolation.compilation import eager
from fno_telemetry.isolation.hooks import Hook
from fno_telemetry.tracing import fourier_calls, torch_functions
from fno_telemetry.tracing.axis_tracking import AxisTracker
from fno_telemetry.tracing.branch_reports import BranchReports
from fno_telemetry.tracing.branch_sums import ADDITIONS, Term, find_overwritten
from fno_telemetry.tracing.events import (
    ActivationCalled,
    CallEnded,
    Failed,
    Listener,
    Overwriting,
    Padded,
)
from fno_telemetry.tracing.lineage import Lineage
from fno_telemetry.tracing.module_calls import Call, paths_by_module, takes_hooks, unwrap
from fno_telemetry.tracing.nested_tensors import tensors_in
from fno_telemetry.tracing.torch_functions import EveryFunction
from fno_telemetry.tracing.uncalled_modules import UncalledModules
from fno_telemetry.tracing.value_flow import ValueFlow

_OF_BRANCHES = ("spectral", "local", "block")
"""The roles of modules that may be a branch, or hold one."""


class ForwardTrace:
    """Has hooks on every module of `model` between enter and exit, and follows forwards within `batch()`.

    Hooks return None and never raise into the forward; exit removes only the trace's own hooks. `roles` by
    path overrule the detected ones; `axes` follows axes through every function. With `within`, only modules
    called by the model's own forward are followed: another model may share a module and call it elsewhere.
    """

    _following = threading.local()  # .trace: the innermost trace that follows this thread

    def __init__(
        self,
        model: nn.Module,
        listener: Listener,
        roles: Mapping[str, str] | None = None,
        axes: AxisTracker | None = None,
        within: bool = False,
    ) -> None:
        self._listener = listener
        self.calls: list[Call] = []
        self.seconds = 0.0  # spent in tracing and in the listener
        self.outside: set[str] = set()  # paths of the calls that `within` excluded
        self.has_homeless_transforms = False  # whether Fourier transforms ran that no followed module called
        self._within = within
        self._model = unwrap(model)
        self._paths = paths_by_module(model)
        self._roles = roles or {}
        self._axes = axes
        self.uncalled = UncalledModules(self._model, self._paths)
        self._handles: list[RemovableHandle] = []
        self._stack: list[Call] = []
        self._numbers: dict[str, int] = {}
        self._values = ValueFlow(self._model)
        no_branches = {path for path, role in self._roles.items() if role not in _OF_BRANCHES}
        self._branches = BranchReports(self._values.lineages, listener, no_branches)

    def __enter__(self) -> "ForwardTrace":
        try:
            for module in self._model.modules():
                if id(module) not in self._paths or not takes_hooks(module):
                    continue
                start, end = Hook(self._start), Hook(self._end)
                self._handles.append(module.register_forward_pre_hook(start, with_kwargs=True))
                self._handles.append(module.register_forward_hook(end, with_kwargs=True, always_call=True))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._forget()

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Follow everything that runs in this block on this thread as one batch; calls are counted from 0."""
        self._forget()
        batch = Call(0, "", 0, None, None)
        self.calls, self._stack = [batch], [batch]
        self._values.start()
        self._branches.start(self.calls)
        outer, self._following.trace = getattr(self._following, "trace", None), self
        try:
            with eager(), EveryFunction(self._function_called):
                yield
            self.aside("", self._branches.call_ended)
        finally:
            self._following.trace = outer
            self._forget()

    def _forget(self) -> None:
        self.calls, self._stack = [], []
        self._numbers.clear()
        self._values.forget()
        self._branches.start(self.calls)

    def _running(self) -> bool:
        # A backward pass recomputes checkpointed modules, or differentiates what was followed before.
        innermost = getattr(self._following, "trace", None) is self
        return innermost and bool(self._stack) and torch._C._current_graph_task_id() == -1

    def _running_modules(self) -> set[int]:
        return {id(call.module) for call in self._stack}

    def aside(self, where: str, body: Callable[[], None]) -> None:
        """Run `body` without any effect on the forward; an error that it raises becomes a `Failed` event."""
        start = time.perf_counter()
        try:
            with torch.no_grad(), torch._C._DisableAutocast(), torch._C.DisableTorchFunction():
                body()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - reported, never raised into the host
            # A listener that fails on this event too is ignored.
            with contextlib.suppress(Exception, SystemExit):
                self._listener.on(Failed(where, error))
        finally:
            self.seconds += time.perf_counter() - start

    def _number(self, path: str) -> int:
        number = self._numbers.get(path, 0)
        self._numbers[path] = number + 1
        return number

    def _path(self, module: nn.Module) -> str:
        paths = self._paths.get(id(module), ("",))
        if len(paths) > 1:
            # A shared module has the path under which the running module holds it.
            for path in paths:
                if path.rpartition(".")[0] == self._stack[-1].path:
                    return path
        return paths[0]

    def _start(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self._running():
            return
        path = self._path(module)
        if self._within and path and len(self._stack) == 1:
            self.outside.add(path)
            return
        call = Call(len(self.calls), path, self._number(path), module, self._stack[-1])
        self.calls.append(call)
        self._stack.append(call)
        self.aside(path, lambda: self._started(call, args, kwargs))

    def _started(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entered = list(tensors_in((args, kwargs)))
        self.uncalled.note((), any(map(self._values.is_followed, entered)), self._running_modules(), calls=1)
        self._branches.tensors_used(entered)
        if call.module is self._model:
            self._values.note_input(entered)
        self._values.note_unseen(entered, call.parent)
        self._values.enter(call, entered)

    def _end(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if not self._running() or all(call.module is not module for call in self._stack):
            return
        while (call := self._stack.pop()).module is not module:
            pass
        self.aside(call.path, lambda: self._ended(call, (args, kwargs), output))

    def _ended(self, call: Call, inputs: tuple[Any, ...], output: Any) -> None:
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
        terms: list[Term] = []
        target = find_overwritten(name, args, kwargs)
        if target is not None or name in ADDITIONS:
            self.aside(parent.path, lambda: terms.extend(self._adding(name, args, kwargs, target)))
        output = func(*args, **kwargs)
        self.aside(parent.path, lambda: self._returned(parent, func, args, kwargs, output, tuple(terms)))
        return output

    def _adding(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], target: torch.Tensor | None
    ) -> tuple[Term, ...]:
        """Return the terms of an addition before it runs; report the sums that it completes or overwrites."""
        if name in ADDITIONS:
            self._values.note_unseen(tensors_in((args, kwargs)), self._stack[-1])
        terms = self._branches.start_addition(name, args, kwargs)
        if target is not None:
            self._branches.tensor_overwritten(target)
            self._listener.on(Overwriting(target))
        return terms

    def _returned(
        self,
        parent: Call,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        output: Any,
        terms: tuple[Term, ...],
    ) -> None:
        name = torch_functions.name_of(func)
        entered = list(tensors_in((args, kwargs)))
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
            self._listener.on(Padded(torch_functions.pad_amounts(args, kwargs)))
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
            self._listener.on(ActivationCalled(parent, name, number, output))

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
