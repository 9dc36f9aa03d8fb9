"""Follows a forward: which modules run, the lineage of each tensor, and which tensors are added.

Hooks report when modules start and end; a torch function mode sees every function called in between. Without
looking at names, this shows which modules are spectral convolutions (the innermost module in which a Fourier
transform and its inverse run), where a spectral branch is added to another branch with the same input, and
where that sum is added to the block's input. Each of these is an event for a `Listener`.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    is_whole_view,
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
from fno_telemetry.tracing.lineage import (
    MODEL_INPUT,
    Lineage,
    LineageTable,
    Operand,
    Part,
    Whole,
    find_origin,
)
from fno_telemetry.tracing.module_calls import Call, owns_parameters, paths_by_module, takes_hooks, unwrap
from fno_telemetry.tracing.nested_tensors import tensors_in
from fno_telemetry.tracing.tensor_shapes import read_shape
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
        self._lineages = LineageTable()
        self._held: dict[int, torch.Tensor] = {}  # by id: the tensors that modules hold before the forward
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
        self._held = {id(tensor): tensor for tensor in _tensors_held_by(self._model)}
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
        self._held.clear()
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
        self._note_unseen(entered, call.parent)
        call.before = call.seen = self._lineages.union(entered) or Lineage()
        operands = self._lineages.operands(entered)
        rank = max((len(operand.shape) for operand in operands), default=0)
        call.entered = reduce(or_, (o.value for o in operands if len(o.shape) == rank), 0)

    def _note_unseen(self, tensors: Iterable[torch.Tensor], parent: Call | None) -> None:
        """Give tensors that appeared out of nothing the lineage of all that the running code had in hand.

        They come from code that cannot be followed, such as a scripted function, unless a module holds them.
        """
        if parent is None or not parent.index:
            return
        for tensor in tensors:
            if (
                id(tensor) in self._held
                or self._lineages.get(tensor) is not None
                or self._lineages.constants.get(tensor)
            ):
                continue
            latest = parent.latest
            likely = latest is not None and latest.shape == read_shape(tensor)
            self._lineages.set_made(tensor, parent.seen, latest.value if latest and likely else 0)

    def _note_made(self, tensor: torch.Tensor, parent: Call) -> None:
        """Note that the code of this call has this tensor in hand now."""
        lineage = self._lineages.get(tensor)
        shape = read_shape(tensor)
        if lineage is not None and shape is not None:
            parent.seen = parent.seen.join(lineage)
            parent.latest = Operand(shape, lineage.value)

    def _end(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if not self._running() or all(call.module is not module for call in self._stack):
            return
        while (call := self._stack.pop()).module is not module:
            pass
        self.aside(call.path, lambda: self._ended(call, (args, kwargs), output))

    def _ended(self, call: Call, inputs: tuple[Any, ...], output: Any) -> None:
        self._report(self._sums.take_ended(call))
        detected = "spectral" if call.transforms_back else ""
        call.spectral = self._roles.get(call.path, detected) == "spectral"
        if call.spectral:
            self._spectral |= call.bit
            call.held_input = next(tensors_in(inputs), None)
        elif call.parent is not None and call.path not in self._roles:
            call.parent.take_over_transforms(call)
        for inner in self.calls[call.index + 1 :]:
            inner.held_input = None
        given = {id(tensor): tensor for tensor in tensors_in(inputs)}
        for tensor in given.values():
            lineage = self._lineages.get(tensor)
            call.input_overwritten |= lineage is not None and not lineage.value & call.before.values
        owner = owns_parameters(call.module)
        operands = self._lineages.operands(given.values())
        if self._axes is not None and not call.spectral and not call.input_overwritten:
            self._follow_axes(self._axes, given.values(), output)
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
            self._lineages.set_made(tensor, made, self._find_origin(call, tensor, operands))
            if call.parent is not None:
                self._note_made(tensor, call.parent)
        self._listener.on(CallEnded(call, inputs, output, self._makers(call, output)))

    def _follow_axes(self, axes: AxisTracker, given: Iterable[torch.Tensor], output: Any) -> None:
        """Follow axes through a module, from the field that it was given first to what it returned."""
        fields = [tensor for tensor in given if self._lineages.get(tensor) is not None]
        for tensor in tensors_in(output) if fields else ():
            axes.follow_module(fields[0], tensor)

    def _find_origin(self, call: Call, output: torch.Tensor, operands: Sequence[Operand]) -> int:
        """Return the value that an output of a call comes from; 0 for a spectral call, which starts anew."""
        if call.spectral:
            return 0
        if self._spectral >> call.index:
            # Spectral calls inside: only the way through them is known.
            lineage = self._lineages.get(output)
            return lineage.value if lineage is not None else 0
        return find_origin(operands, read_shape(output))

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
        """Return the terms of an addition before it runs; report the sums that it finishes or overwrites."""
        if name in ADDITIONS:
            operands = [one for one in (*args, *kwargs.values()) if isinstance(one, torch.Tensor)]
            self._note_unseen(operands, self._stack[-1])
            self._report(self._sums.take_finished(operands[:2], self._lineages, self._is_finished))
        terms = self._sums.collect_terms(name, args, kwargs, self._lineages)
        if target is not None:
            self._report(self._sums.take_overwritten(target))
            self._listener.on(Overwriting(target))
        return terms

    def _is_finished(self, held: Sum, lineage: Lineage) -> bool:
        """Whether this is a whole branch sum, and what is added to it comes from another block."""
        own = find_branch_sum(held, self.calls, self._spectral, self._lineages)
        if own is None:
            return False
        other = lineage.calls & self._spectral & ~own.bits & ~own.spectral[-1].before.calls
        return bool(other & self._added)

    def _report(self, sums: Iterable[Sum]) -> None:
        """Report the branch sums and residual sums among these complete sums."""
        for total in sums:
            branch_sum = find_branch_sum(total, self.calls, self._spectral, self._lineages)
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
                before, after = branch_sum.before, branch_sum.after
                self._listener.on(
                    ResidualAdded(spectral, total.parent, before, after, total.order, total.result)
                )

    def _input_of(self, spectral: Call) -> torch.Tensor | None:
        """Return the input of a spectral call, None if it has another value by now."""
        tensor = spectral.held_input
        lineage = None if tensor is None else self._lineages.get(tensor)
        return tensor if lineage is not None and lineage.value & spectral.before.values else None

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
        self._note_unseen(entered, parent)
        transforms = name in fourier_calls.INVERSE or name in fourier_calls.FORWARD
        self.has_homeless_transforms |= transforms and not parent.runs_now
        lineage = self._lineages.union(entered)
        self.uncalled.note(entered, lineage is not None, self._running_modules())
        if lineage is None and name in fourier_calls.INVERSE:
            # Written by code that cannot be followed.
            lineage = parent.seen
        if lineage is None or name in torch_functions.FRESH:
            for tensor in tensors_in(output):
                self._lineages.constants.set(tensor, True)
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
        operands = self._lineages.operands(entered)
        whole = self._lineages.join_parts(entered) if name in torch_functions.JOINING else None
        for position, tensor in enumerate(changed):
            if target is None and any(tensor is one for one in entered):
                continue  # returned as it is
            same = torch_functions.keeps_values(name, args) or is_whole_view(tensor, entered[0])
            if target is None and own is not None and same:
                self._lineages.set(tensor, own)
            elif whole is not None and read_shape(tensor) == whole.shape:
                self._lineages.set(tensor, whole.lineage)
            else:
                self._lineages.set_made(tensor, lineage, find_origin(operands, read_shape(tensor)))
            # Writing into a view changes its base.
            if target is tensor and (base := target._base) is not None:
                before = self._lineages.get(base) or Lineage()
                self._lineages.set_made(base, lineage.join(before), before.value)
            if terms:
                self._sums.hold(tensor, terms, parent)
            shape = read_shape(entered[0])
            if own is not None and shape is not None and name in torch_functions.SPLITTING:
                part = Part(Whole(own, shape), position, len(changed))
                self._lineages.parts.set(tensor, part)
            self._note_made(tensor, parent)
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
        made = self._lineages.get(output)
        if name in fourier_calls.INVERSE:
            parent.inverse_transforms.append(call)
            parent.transformed_back.append(lineage.values)
        else:
            parent.forward_transforms.append(call)
            parent.transformed |= made.value if made is not None else 0


def _tensors_held_by(model: nn.Module) -> Iterator[torch.Tensor]:
    """Yield the parameters, buffers and other tensors that are attributes of the modules."""
    for module in model.modules():
        yield from tensors_in((module._parameters, module._buffers, vars(module)))
