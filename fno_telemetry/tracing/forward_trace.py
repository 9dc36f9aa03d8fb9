"""Follows a forward: which modules run, the lineage of each tensor, and which tensors are added.

Hooks report when modules start and end; a torch function mode sees every function called in between. Without
looking at names, this shows which modules are spectral convolutions (the innermost module in which a Fourier
transform and its inverse run), where a spectral branch is added to another branch with the same input, and
where that sum is added to the block's input. Each of these is an event for a `Listener`.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from fno_telemetry.tracing.branch_sums import (
    ADDITIONS,
    OpenSums,
    Sum,
    Term,
    find_branch_sum,
    find_overwritten,
)
from fno_telemetry.tracing.events import (
    ActivationCalled,
    BranchesAdded,
    CallEnded,
    Failed,
    Listener,
    Overwriting,
    Padded,
    ResidualAdded,
)
from fno_telemetry.tracing.lineage import MODEL_INPUT, Lineage, LineageTable
from fno_telemetry.tracing.module_calls import Call, paths_by_module, takes_hooks, unwrap
from fno_telemetry.tracing.nested_tensors import tensors_in
from fno_telemetry.tracing.torch_functions import EveryFunction
from fno_telemetry.tracing.uncalled_modules import UncalledModules


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
        self._within = within
        self._model = unwrap(model)
        self._paths = paths_by_module(model)
        self._roles = roles or {}
        self._axes = axes
        self.uncalled = UncalledModules(self._model, self._paths)
        self._handles: list[RemovableHandle] = []
        self._stack: list[Call] = []
        self._numbers: dict[str, int] = {}
        self._lineages = LineageTable()
        self._sums = OpenSums()
        self._added = 0  # spectral calls whose branch was added to something
        self._branch_sums: list[int] = []  # the spectral calls of each sum with a local branch
        self._updated = 0  # spectral calls whose block was added to its input
        self._spectral = 0

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
        outer, self._following.trace = getattr(self._following, "trace", None), self
        try:
            with eager(), EveryFunction(self._function_called):
                yield
            self.aside("", lambda: self._report(self._sums.take_ended()))
        finally:
            self._following.trace = outer
            self._forget()

    def _forget(self) -> None:
        self.calls, self._stack = [], []
        self._numbers.clear()
        self._lineages.clear()
        self._sums.clear()
        self._added = self._updated = self._spectral = 0
        self._branch_sums.clear()

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
        followed = any(self._lineages.get(one) is not None for one in entered)
        self.uncalled.note((), followed, self._running_modules(), calls=1)
        self._report(self._sums.take_used(entered))
        if call.module is self._model:
            for tensor in entered:
                if self._lineages.get(tensor) is None:
                    self._lineages.set_made(tensor, MODEL_INPUT)
        call.before = self._lineages.union(entered) or Lineage()

    def _end(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if not self._running() or all(call.module is not module for call in self._stack):
            return
        while (call := self._stack.pop()).module is not module:
            pass
        self.aside(call.path, lambda: self._ended(call, (args, kwargs), output))

    def _ended(self, call: Call, inputs: tuple[Any, ...], output: Any) -> None:
        self._report(self._sums.take_ended(call))
        transformed = bool(call.forward_transforms and call.inverse_transforms)
        call.spectral = self._roles.get(call.path, "spectral" if transformed else "") == "spectral"
        if call.spectral:
            self._spectral |= call.bit
        elif call.parent is not None and call.path not in self._roles:
            # A module may run only one of the two transforms and its parent the other.
            call.parent.forward_transforms += call.forward_transforms
            call.parent.inverse_transforms += call.inverse_transforms
        given = {id(tensor): tensor for tensor in tensors_in(inputs)}
        for tensor in given.values():
            lineage = self._lineages.get(tensor)
            call.input_overwritten |= lineage is not None and not lineage.value & call.before.values
        owner = call.module is not None and any(True for _ in call.module.parameters(recurse=False))
        for tensor in tensors_in(output):
            # A module that returns its input unchanged made nothing.
            if id(tensor) in given and not call.input_overwritten:
                continue
            own = self._lineages.get(tensor) or call.before
            made = own.join(call.before)
            # A network that holds a parameter itself is not the layer that made its output.
            is_network = (
                self._spectral & ~call.bit and self._spectral >> call.index << call.index == self._spectral
            )
            makers = call.bit if owner and not is_network else own.makers
            made = made._replace(calls=made.calls | call.bit, makers=makers)
            self._lineages.set_made(tensor, made)
        self._listener.on(CallEnded(call, inputs, output, self._makers(call, output)))

    def _makers(self, call: Call, output: Any) -> int:
        """Return the makers of the output of an outermost call, 0 for a call inside another one."""
        if call.parent is None or call.parent.index:
            return 0
        known = [lineage for tensor in tensors_in(output) if (lineage := self._lineages.get(tensor))]
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
        """Return the terms of an addition before it runs; report the sums whose terms it overwrites."""
        terms = self._sums.collect_terms(name, args, kwargs, self._lineages)
        if target is not None:
            self._report(self._sums.take_overwritten(target))
            self._listener.on(Overwriting(target))
        return terms

    def _report(self, sums: Iterable[tuple[torch.Tensor, Sum]]) -> None:
        """Report the branch sums and residual sums among these complete sums."""
        for tensor, total in sums:
            branch_sum = find_branch_sum(total, tensor, self.calls, self._spectral)
            if branch_sum is None:
                continue
            spectral, bits = branch_sum.spectral, branch_sum.bits
            if branch_sum.local_operand is not None and not self._added & bits:
                self._branch_sums.append(bits)
                s, t = branch_sum.spectral_operand, branch_sum.local_operand
                self._listener.on(BranchesAdded(spectral, branch_sum.local, total.parent, s, t))
            self._added |= bits
            if branch_sum.before is not None and not self._updated & bits:
                self._updated |= bits
                # An update made by several blocks together, as in attention, belongs to none of them.
                if sum(bool(other & bits) for other in self._branch_sums) > 1:
                    continue
                self._listener.on(ResidualAdded(spectral, total.parent, branch_sum.before, branch_sum.after))

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
        lineage = self._lineages.union(entered)
        self.uncalled.note(entered, lineage is not None, self._running_modules())
        if lineage is None:
            return
        if name == "pad":
            self._listener.on(Padded(torch_functions.pad_amounts(args, kwargs)))
        changed = [args[0]] if name == "__setitem__" else list(tensors_in(output))
        if changed and not terms:
            self._report(self._sums.take_used(entered))
        if self._axes is not None:
            followed = [one for one in entered if self._lineages.get(one) is not None]
            self._axes.follow_function(func, args, kwargs, followed, list(tensors_in(output)))
        target, own = find_overwritten(name, args, kwargs), self._lineages.get(entered[0])
        for tensor in changed:
            if target is None and any(tensor is one for one in entered):
                continue  # returned as it is
            if target is None and own is not None and torch_functions.keeps_values(name, args):
                self._lineages.set(tensor, own)
            else:
                self._lineages.set_made(tensor, lineage)
            # Writing into a view changes its base.
            if target is tensor and (base := target._base) is not None:
                self._lineages.set_made(base, lineage.join(self._lineages.get(base) or Lineage()))
            if terms:
                self._sums.hold(tensor, terms, parent)
        inverse = name in fourier_calls.INVERSE
        if (inverse or name in fourier_calls.FORWARD) and parent.runs_now:
            call = fourier_calls.read_call(name, args, kwargs, output)
            if self._axes is not None:
                self._axes.follow_transform(call, parent, entered[0], output)
            (parent.inverse_transforms if inverse else parent.forward_transforms).append(call)
        elif (
            name.rstrip("_") in torch_functions.ACTIVATIONS
            and isinstance(output, torch.Tensor)
            and parent.is_own_code
        ):
            name = name.rstrip("_")
            number = self._number(f"{parent.path}#{name}")
            self._listener.on(ActivationCalled(parent, name, number, output))
