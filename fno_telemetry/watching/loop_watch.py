"""A watch of a training loop: the hooks by which it finds the due steps, and what it does in each."""

import contextlib
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol, Self, SupportsIndex

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from fno_telemetry.isolation.compilation import keep_uncompiled
from fno_telemetry.isolation.hooks import Hook
from fno_telemetry.mapping.layer_filters import select_names
from fno_telemetry.mapping.measurement_plan import MeasurementPlan
from fno_telemetry.records import CaptureRecord
from fno_telemetry.session import check_step
from fno_telemetry.tracing.module_calls import count_running, unwrap
from fno_telemetry.tracing.nested_tensors import tensors_in
from fno_telemetry.watching.delivery import Delivery
from fno_telemetry.watching.forward_state import ForwardState, is_finite
from fno_telemetry.watching.nonfinite_dump import Dump, describe_origin
from fno_telemetry.watching.own_forwards import OwnForwards, runs_own_forward
from fno_telemetry.watching.parameter_movement import ParameterMovement
from fno_telemetry.watching.schedule import Schedule
from fno_telemetry.watching.step_measurement import (
    LoopFacts,
    Settings,
    StepMeasurement,
    is_scalar,
    read_number,
)
from fno_telemetry.wording import describe_error

TRAINING = "train"


class Scaler(Protocol):
    """What scales a loss for float16, such as `torch.amp.GradScaler`."""

    def get_scale(self) -> float:
        """Return the factor of the loss."""
        ...


class Watch:
    """Measures the forwards, the backward and the update of the due steps of a training loop.

    `fno_telemetry.watch` makes it. Between due steps its hook on the model looks at a flag.
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: Schedule,
        delivery: Delivery,
        settings: Settings,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        scaler: Scaler | None = None,
        plan: MeasurementPlan | None = None,
        layers: Sequence[str] = (),
        exclude: Sequence[str] = (),
        dump: Dump | None = None,
    ) -> None:
        self.problems = delivery.problems.lines
        self._model = model
        self._root = unwrap(model)
        self._schedule = schedule
        self._optimizer = optimizer
        self._scaler = scaler
        self._plan = plan
        self._layers, self._exclude = layers, exclude
        self._settings = settings
        self._own = OwnForwards(model)
        self._movement = ParameterMovement(model)
        self._delivery = delivery
        self._last: int | None = None  # the last step that the loop named
        self._gap = 1
        self._forwards = 0  # of the last due step
        self._recorded = 0
        self._lost = 0  # due steps that could not be recorded
        self._expects_target = True  # until a step had none
        self._is_armed = self._schedule.is_due(0)
        self._abandoned: list[StepMeasurement] = []  # whose hooks are still to be removed
        self._is_asked = False  # for the step after the one that is measured
        self._thread = threading.get_ident()  # the one of the loop
        self._is_closed = False
        self._follows = False
        self._measuring: StepMeasurement | None = None
        self._seen_float16 = False
        self._dump = dump
        self._state: ForwardState | None = None  # of the forward that runs, if it may be dumped
        self._has_dumped = False
        self._ends: list[RemovableHandle] = []
        self._raised_before: BaseException | None = None  # the error that is handled around a forward
        # Hooks inside what is compiled would become a part of it.
        called = model if settings.is_compiled else self._root
        begin = Hook(self._forward_begins)
        self._handles = [called.register_forward_pre_hook(begin, with_kwargs=True)]
        if dump is not None:
            look = Hook(self._look_at_output)
            self._handles.append(called.register_forward_hook(look, always_call=True))
        _watching[self._root] = weakref.ref(self)

    @property
    def plan(self) -> MeasurementPlan | None:
        """How the model is measured; None before the first due step, unless it was given."""
        return self._plan

    @property
    def recorded(self) -> int:
        """How many records were handed to the sinks."""
        return self._recorded

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def step(
        self, step: SupportsIndex, *, loss: object = None, output: object = None, target: object = None
    ) -> None:
        """Say that a training step has ended, after the optimizer's; `step` is its number, from 0.

        Of a due step, the record is made and handed to the sinks. `loss` is a number or a tensor of one
        element; `output` and `target` are compared as they are, and must have one shape.
        """
        step = check_step(step)
        if self._is_closed:
            return
        self._thread = threading.get_ident()
        self._remove_abandoned()
        self._look_at_loss(step, loss)
        self._expects_target = output is not None and target is not None
        self._delivery.catch_up()
        measured, self._measuring = self._measuring, None
        if measured is not None and measured.forwards:
            facts = LoopFacts(
                step=step,
                stage=TRAINING,
                loss=loss,
                output=output,
                target=target,
                learning_rates=self._read_learning_rates(),
                dropped=self._delivery.dropped + self._lost,
            )
            self._finish(measured, facts)
        if self._last is not None and step > self._last:
            self._gap = step - self._last
        self._last = step
        # Where steps jump, one after the last step seen is due at the next one that there is.
        with self._noting("the schedule cannot be read"):
            self._is_armed = self._is_armed or self._schedule.is_due_between(step, step + self._gap)

    def resume(self, step: SupportsIndex) -> None:
        """Say before the first step that it is this one, as after a checkpoint; by default it is 0."""
        self._is_armed = self._schedule.is_due(check_step(step))

    def begin_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Measure a forward of the model that had begun when the watch was made, if the step is due."""
        self._forward_begins(module, args, kwargs)

    def capture_now(self) -> None:
        """Measure the next step, whatever the schedule says."""
        self._is_armed = True
        self._is_asked = self._measuring is not None

    def close(self) -> None:
        """Remove all hooks, and wait until the sinks have what was recorded."""
        if self._is_closed:
            return
        self._is_closed = True
        self._give_up()
        self._remove_abandoned()
        was_armed, self._is_armed = self._is_armed, False
        self._remove_ends()
        for handle in self._handles:
            handle.remove()
        if not self._recorded and self._last is not None and not self.problems and was_armed:
            self._delivery.problems.note(
                "no step was recorded: the forward of the model was never called in training mode; watch the "
                "object that the loop calls"
            )
        self._handles.clear()
        if _find_watch(self._root) is self:
            del _watching[self._root]
        self._delivery.close()

    def _forward_begins(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not (self._is_armed or self._dump) or not module.training:
            return
        if self._is_elsewhere() or _recomputes():
            return
        with self._apart():
            if self._dump is not None and not self._has_dumped and self._state is None:
                self._state = ForwardState(self._root, args, kwargs)
            if self._is_armed:
                self._begin(module, args, kwargs)

    @keep_uncompiled
    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._measuring is None:
            self._measuring = self._prepare(args, kwargs)
        measuring = self._measuring
        if measuring.is_running:
            if count_running(module) > 1:
                # The model calls itself: the outer call is measured.
                return
            # An interrupt ended the last forward without a word to hooks.
            self._remove_ends()
            self._give_up()
            self._measuring = measuring = self._prepare(args, kwargs)
        self._seen_float16 |= _runs_in_float16((args, kwargs))
        self._raised_before = sys.exc_info()[1]
        if self._settings.is_compiled:
            self._own.measure(measuring, ForwardState(self._root, args, kwargs))
        else:
            measuring.start_forward(module, args, kwargs)
        # After the hooks of what follows the forward, so that it sees the end of this call as well.
        self._ends.append(module.register_forward_hook(Hook(self._forward_ends), always_call=True))

    def _forward_ends(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        if self._is_elsewhere():
            return
        self._remove_ends()
        measuring = self._measuring
        if measuring is None:
            return
        with self._apart():
            if self._settings.is_compiled:
                measuring.watch_output(output)
            else:
                measuring.end_forward()
            self._seen_float16 |= measuring.saw_float16
            if sys.exc_info()[1] is not self._raised_before:
                # The forward raised an error: the next one starts afresh.
                self._give_up()
        self._raised_before = None

    def _prepare(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], is_repeated: bool = False
    ) -> StepMeasurement:
        """Return what measures a step, or with `is_repeated` a forward of it once more."""
        if self._plan is None:
            self._plan = self._own.make_plan(args, kwargs)
        names = select_names(self._plan.model_map, self._layers, self._exclude)
        self._movement.keep_first()
        own = self._settings
        return StepMeasurement(
            self._model,
            self._plan,
            names,
            replace(own, gradients=False, updates=False) if is_repeated else own,
            self._movement,
            self._find_scale,
            self._follows or is_repeated,
            is_only_forward=self._forwards == 1 or is_repeated,
            expects_target=self._expects_target and not is_repeated,
        )

    def _finish(self, measured: StepMeasurement, facts: LoopFacts) -> None:
        # The running step is already measured.
        self._is_armed = self._is_asked
        self._is_asked = False
        self._forwards = measured.forwards
        with self._apart(), torch.no_grad():
            if measured.deviation is not None:
                # The forward has run already: the next one is followed, which needs no plan.
                self._follows = self._is_armed = True
                self._lost += 1
                self._delivery.problems.note(
                    f"step {facts.step} is not recorded: a forward was not as planned: {measured.deviation}; "
                    "later ones are followed function by function"
                )
            else:
                record = measured.make_record(facts)
                self._deliver(record)
        with self._noting("a step could not be ended"):
            measured.stop()

    def _deliver(self, record: CaptureRecord) -> None:
        self._delivery.deliver(record)
        self._recorded += 1
        if self._dump is not None:
            self._dump.keep(record)

    def _look_at_output(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        """Measure the forward that has just ended once more if its output is not finite."""
        if self._is_elsewhere():
            return
        state, self._state = self._state, None
        if state is None or self._dump is None or is_finite(output):
            return
        with self._apart():
            self._has_dumped = True
            self._measure_again(state, self._dump)

    @keep_uncompiled
    def _measure_again(self, state: ForwardState, dump: Dump) -> None:
        step = 0 if self._last is None else self._last + self._gap
        if not state.is_input_unchanged():
            self._delivery.problems.note(
                f"the output of step {step} is not finite; its input was overwritten since"
            )
            return
        measured = self._prepare(state.args, state.kwargs, is_repeated=True)
        self._own.measure(measured, state)
        record = measured.make_record(LoopFacts(step, TRAINING, nonfinite="output"))
        measured.stop()
        path = dump.write(record)
        self._delivery.problems.note(f"{describe_origin(record)}; see {path}")

    def _look_at_loss(self, step: int, loss: object) -> None:
        if self._dump is None or self._has_dumped or loss is None:
            return
        with self._apart():
            if is_scalar(loss) and read_number(loss) is None:
                self._has_dumped = True
                self._delivery.problems.note(
                    f"the loss of step {step} is not finite, while the outputs of the model are"
                )

    def _find_scale(self) -> float | None:
        if self._scaler is not None:
            return float(self._scaler.get_scale())
        return None if self._seen_float16 else 1.0

    def _read_learning_rates(self) -> tuple[float, ...] | None:
        if self._optimizer is not None:
            with self._noting("the learning rates cannot be read"):
                return tuple(float(group["lr"]) for group in self._optimizer.param_groups)
        return None

    def _is_elsewhere(self) -> bool:
        """Return whether another thread runs the model, or a forward of a watch's own does."""
        return threading.get_ident() != self._thread or runs_own_forward()

    @contextlib.contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        """Note an error of the block instead of raising it into the loop."""
        try:
            yield
        except (Exception, SystemExit) as error:  # noqa: BLE001 - nothing reaches the loop
            self._delivery.problems.note(f"{what}: {describe_error(error)}")

    def _remove_ends(self) -> None:
        for handle in self._ends:
            handle.remove()
        self._ends.clear()

    def _give_up(self) -> None:
        """Abandon the measurement that runs, if any."""
        measured, self._measuring = self._measuring, None
        if measured is not None:
            self._abandoned.append(measured)
            with self._noting("a step could not be ended"):
                measured.abandon()

    def _remove_abandoned(self) -> None:
        """Remove the hooks of what was abandoned; not to be called in a hook."""
        abandoned, self._abandoned = self._abandoned, []
        for measured in abandoned:
            with self._noting("a step could not be ended"):
                measured.stop()

    @contextlib.contextmanager
    def _apart(self) -> Iterator[None]:
        """Note an error of the block instead of raising it into the loop, and give up this step."""
        try:
            yield
        except (Exception, SystemExit) as error:  # noqa: BLE001 - nothing reaches the loop
            self._is_armed = False
            self._delivery.problems.note(f"a step could not be measured: {describe_error(error)}")
            self._give_up()


_watching: "weakref.WeakKeyDictionary[nn.Module, weakref.ref[Watch]]" = weakref.WeakKeyDictionary()


def _find_watch(root: nn.Module) -> Watch | None:
    """Return what watches this model."""
    found = _watching.get(root)
    return None if found is None else found()


def release_earlier(root: nn.Module) -> None:
    """Close what watches this model already, so that one set of hooks is left."""
    earlier = _find_watch(root)
    if earlier is not None:
        earlier.close()


def _recomputes() -> bool:
    """Return whether a backward runs, which recomputes the forward of a checkpointed module."""
    return torch._C._current_graph_task_id() != -1


def _runs_in_float16(args: object) -> bool:
    kinds = {tensor.device.type for tensor in tensors_in(args)}
    return any(
        torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16 for kind in kinds
    )
