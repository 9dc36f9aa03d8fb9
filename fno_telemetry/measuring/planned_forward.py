"""Measures forwards as planned: by plain hooks, and by counting functions only where the plan needs one."""

import contextlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from fno_telemetry.isolation.tensor_values import count_writes
from fno_telemetry.mapping.call_inputs import (
    count_first_writes,
    list_field_shapes,
    read_field_shape,
    read_ranks,
)
from fno_telemetry.mapping.measurement_plan import (
    MeasurementPlan,
    PlannedActivation,
    PlannedBranches,
    PlannedCall,
    PlannedEnd,
    PlannedEvent,
    PlannedFormula,
    PlannedResidual,
)
from fno_telemetry.mapping.spectral_calls import describe_spectral, read_settings
from fno_telemetry.statistics import reading
from fno_telemetry.tracing import fourier_calls, torch_functions
from fno_telemetry.tracing.events import (
    ActivationCalled,
    BranchesAdded,
    CallEnded,
    Listener,
    Padded,
    ResidualAdded,
)
from fno_telemetry.tracing.followed_calls import FollowedCalls
from fno_telemetry.tracing.module_calls import Call
from fno_telemetry.tracing.nested_tensors import tensors_in
from fno_telemetry.tracing.torch_functions import EveryFunction


class _Held(NamedTuple):
    """A wanted tensor, with torch's count of writes when it appeared; None if that need not be checked."""

    tensor: torch.Tensor
    writes: int | None


class PlannedForward(FollowedCalls):
    """Sends the events that a trace would send, as long as a forward runs as planned.

    After a batch, `deviation` says where it did not; from there on nothing was sent. Only activations in
    `names` are sent, and sums only with `sums`. With `looks_at_modes`, the modes of spectral calls are those
    of the first forward with such inputs, where more samples show more than the one that the plan is made of.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: MeasurementPlan,
        listener: Listener,
        names: Collection[str],
        sums: bool = True,
        looks_at_modes: bool = False,
    ) -> None:
        super().__init__(model, listener, within=plan.model_map.runs_whole)
        self.deviation: str | None = None
        self._plan = plan
        # Activation functions that run as planned, as far as anyone looks.
        self.unasked = frozenset(
            event.path
            for event in plan.events
            if isinstance(event, PlannedActivation) and event.path not in names
        )
        self._events = [event for event in plan.events if _is_asked(event, names, sums)]
        used = [_list_wanted(event) for event in self._events]
        last = {slot: number for number, slots in enumerate(used) for slot in slots}
        self._released = [
            [slot for slot in slots if last[slot] == number] for number, slots in enumerate(used)
        ]
        self._slots: dict[tuple[int, str, int], list[tuple[int, int]]] = {}  # by call, side and function
        for slot in last:
            place = plan.wanted[slot].appearance
            self._slots.setdefault((place.call, place.side, place.function), []).append(
                (place.position, slot)
            )
        self._undecided = any(call.spectral and not call.spectral.decided for call in plan.calls)
        self._looking = False  # at what the spectral calls of this batch keep
        self._pads = {(pad.parent, pad.function) for pad in plan.pads}
        spectral = {
            index: call.spectral for index, call in enumerate(plan.calls) if call.spectral is not None
        }
        # What spectral calls keep, by their index, the shape of their input and the settings of the module.
        self._spectral = {(index, one.shape, one.settings): one for index, one in spectral.items()}
        by_path = {path: m for m in self._model.modules() for path in self._paths.get(id(m), ())}
        self._settings = {plan.calls[index].path: one.settings for index, one in spectral.items()}
        self._transforming = [by_path.get(path) for path in self._settings]
        # The shapes of inputs and the settings for which `_spectral` is complete.
        self._known = {(plan.field_shapes, tuple(self._settings.values()))}
        # Those for which more than the sample of the plan was seen.
        self._looked: set[tuple[Any, ...]] = set()
        self._looks_at_modes = looks_at_modes
        self._decided = True  # whether all spectral calls of this batch showed what they keep
        # Calls of which functions are taken by number.
        self._counted = {call for call, _, function in self._slots if function >= 0}
        self._counted |= {parent for parent, _ in self._pads}
        self._counting = False
        self._next = 0  # the position of the event that is waited for
        self._held: dict[int, _Held] = {}

    @contextmanager
    def run(self, inputs: object) -> Iterator[None]:
        """Measure what runs in this block as one batch of these inputs."""
        now = list_field_shapes(inputs), tuple(map(read_settings, self._transforming))
        # On a device, looking would have to wait for it.
        looks = self._looks_at_modes and all(map(reading.is_free, tensors_in(inputs)))
        self._looking = self._undecided or now not in self._known or (looks and now not in self._looked)
        self._counting = bool(self._counted) or self._looking
        with self.batch():
            yield
        if self.deviation is None and self._decided:
            self._known.add(now)
            self._looked.add(now)

    def _around_batch(self) -> contextlib.AbstractContextManager[object]:
        self.deviation, self._next, self._decided = None, 0, True
        return EveryFunction(self._function_called) if self._counting else contextlib.nullcontext()

    def _batch_ended(self) -> None:
        self._emit()
        if self.deviation is not None:
            return
        if len(self.calls) < len(self._plan.calls):
            missing = self._plan.calls[len(self.calls)].path
            self._deviate(f"{missing!r} was not called")
        elif self._next < len(self._events):
            self._deviate("a tensor that is measured did not appear")

    def _forget(self) -> None:
        super()._forget()
        self._held = {}

    def _deviate(self, how: str) -> None:
        self.deviation = how
        self._held.clear()

    def _started(self, call: Call, inputs: tuple[Any, ...]) -> None:
        if self.deviation is not None:
            return
        planned = self._plan.calls[call.index] if call.index < len(self._plan.calls) else None
        parent = call.parent.index if call.parent is not None else 0
        if planned is None or planned.path != call.path or planned.parent != parent:
            self._deviate(f"{call.path or 'the model'!r} was called, which was not planned there")
            return
        call.writes_of_input = count_first_writes(inputs)
        self._take(call.index, "input", -1, inputs)
        self._emit()

    def _ended(self, call: Call, inputs: tuple[Any, ...], output: Any) -> None:
        if self.deviation is not None:
            return
        planned = self._plan.calls[call.index]
        if self._is_counted(call) and len(call.functions) != len(planned.functions):
            self._deviate(f"{call.path or 'the model'!r} called fewer functions")
            return
        self._take(call.index, "output", -1, output)
        self._emit()
        if self.deviation is not None:
            return
        waiting = self._events[self._next] if self._next < len(self._events) else None
        if not isinstance(waiting, PlannedEnd) or waiting.call != call.index:
            self._deviate(f"a tensor that is measured did not appear before the end of {call.path!r}")
        elif read_ranks(tensors_in(output)) != planned.ranks:
            self._deviate(f"{call.path!r} returned tensors of other ranks")
        elif self._describe(call, planned, inputs):
            self._next += 1
            self._listener.on(CallEnded(call, inputs, output))
            self._emit()

    def _describe(self, call: Call, planned: PlannedCall, inputs: tuple[Any, ...]) -> bool:
        """Set in a call what a trace would find out; return whether it is as planned."""
        written = call.writes_of_input != count_first_writes(inputs)
        call.input_overwritten = planned.overwrites or (written and not planned.counts_other_writes)
        call.own_transforms = planned.own_transforms
        call.spectral = planned.spectral is not None
        if planned.spectral is None:
            if self._looking and call.parent is not None:
                call.parent.take_over_transforms(call)
            return True
        key = call.index, read_field_shape(inputs), read_settings(call.module)
        known = self._spectral.get(key)
        if self._looking:
            call.selects = planned.spectral.selects
            known = self._spectral[key] = describe_spectral(call, inputs)
            self._decided &= known.decided
        if known is None:
            self._deviate(f"{call.path!r} was given a field of another size")
            return False
        call.known_transforms = known.modes, known.available
        return True

    def _function_called(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self._running() or self.deviation is not None:
            return func(*args, **kwargs)
        call, name = self._stack[-1], torch_functions.name_of(func)
        number = len(call.functions)
        call.functions.append(name)
        if self._is_counted(call) and not self._is_planned(call, number, name):
            self._deviate(f"{name}() was called in {call.path or 'the model'!r}, which was not planned there")
            return func(*args, **kwargs)
        if (call.index, "input", number) in self._slots:
            self.aside(call.path, partial(self._take_and_emit, call.index, "input", number, (args, kwargs)))
        output = func(*args, **kwargs)
        if (call.index, "output", number) in self._slots:
            self.aside(call.path, partial(self._take_and_emit, call.index, "output", number, output))
        if (call.index, number) in self._pads:
            self.aside(call.path, partial(self._padded, args, kwargs))
        if self._looking and (name in fourier_calls.INVERSE or name in fourier_calls.FORWARD):
            self.aside(call.path, partial(self._transformed, call, name, args, kwargs, output))
        return output

    def _is_counted(self, call: Call) -> bool:
        """Return whether functions of this call are taken by number."""
        return self._counting and call.index in self._counted

    def _is_planned(self, call: Call, number: int, name: str) -> bool:
        planned = self._plan.calls[call.index].functions
        return number < len(planned) and planned[number] == name

    def _padded(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._listener.on(Padded(torch_functions.pad_amounts(args, kwargs)))

    def _transformed(
        self, call: Call, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], output: torch.Tensor
    ) -> None:
        if call.runs_now:
            transforms = call.inverse_transforms if name in fourier_calls.INVERSE else call.forward_transforms
            transforms.append(fourier_calls.read_call(name, args, kwargs, output))

    def _take_and_emit(self, call: int, side: str, function: int, value: object) -> None:
        self._take(call, side, function, value)
        self._emit()

    def _take(self, call: int, side: str, function: int, value: object) -> None:
        """Keep the wanted tensors among those in `value`."""
        slots = self._slots.get((call, side, function))
        if slots is None:
            return
        tensors = list(tensors_in(value))
        for position, slot in slots:
            if position >= len(tensors):
                self._deviate(f"fewer tensors than planned in {self._plan.calls[call].path or 'the model'!r}")
                return
            tensor = tensors[position]
            copied = self._plan.wanted[slot].copied
            # What is copied may be written to afterwards.
            self._held[slot] = _Held(
                tensor.detach().clone() if copied else tensor, None if copied else count_writes(tensor)
            )

    def _emit(self) -> None:
        """Send the events that are next and of which all tensors have appeared."""
        while self.deviation is None and self._next < len(self._events):
            event = self._events[self._next]
            if isinstance(event, PlannedEnd):
                return
            held = [self._held.get(slot) for slot in _list_wanted(event)]
            if any(one is None for one in held):
                return
            if any(one is not None and _was_written(one) for one in held):
                self._deviate("a tensor was written to that is not planned to be")
                return
            tensors = [self._compute(formula) for formula in event.formulas]
            for slot in self._released[self._next]:
                del self._held[slot]
            self._next += 1
            self._listener.on(self._make_event(event, tensors))

    def _make_event(
        self, event: PlannedEvent, tensors: list[torch.Tensor | None]
    ) -> ActivationCalled | BranchesAdded | ResidualAdded:
        parent = self.calls[event.parent]  # type: ignore[union-attr]
        match event:
            case PlannedActivation():
                return ActivationCalled(parent, event.name, event.number, _known(tensors[0]))
            case PlannedBranches():
                s, t, before, result = tensors
                return BranchesAdded(
                    spectral=self._calls_at(event.spectral),
                    local=self._calls_at(event.local),
                    parent=parent,
                    s=_known(s),
                    t=_known(t),
                    order=event.order,
                    before=before,
                    result=result,
                    spans_blocks=event.spans_blocks,
                )
            case PlannedResidual():
                before, after = tensors
                spectral = self._calls_at(event.spectral)
                return ResidualAdded(spectral, parent, _known(before), _known(after), event.order, None)
        raise TypeError(f"{type(event).__name__} is not an event between calls")

    def _calls_at(self, indices: Iterable[int]) -> tuple[Call, ...]:
        return tuple(self.calls[index] for index in indices)

    def _compute(self, formula: PlannedFormula) -> torch.Tensor | None:
        """Return the tensor that a formula describes, in the precision in which the forward computed it."""
        total: torch.Tensor | None = None
        for product in formula:
            tensors = [self._held[slot].tensor for slot in product.tensors]
            made = tensors[0]
            for factor in tensors[1:]:
                made = made * factor
            for number in product.numbers:
                made = made * number
            total = made if total is None else total + made
        return total


def _is_asked(event: PlannedEvent, names: Collection[str], sums: bool) -> bool:
    if isinstance(event, PlannedActivation):
        return event.path in names
    return sums or isinstance(event, PlannedEnd)


def _list_wanted(event: PlannedEvent) -> list[int]:
    """Return what an event needs, by position among all that is wanted."""
    slots = (slot for formula in event.formulas for product in formula for slot in product.tensors)
    return list(dict.fromkeys(slots))


def _was_written(held: _Held) -> bool:
    return held.writes is not None and held.writes != count_writes(held.tensor)


def _known(tensor: torch.Tensor | None) -> torch.Tensor:
    if tensor is None:
        raise ValueError("a tensor that is needed has no formula")
    return tensor
