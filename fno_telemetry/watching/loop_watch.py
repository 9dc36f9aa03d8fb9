"""A watch of a training loop: the hooks by which it finds the due steps, and what it does in each."""

import contextlib
import logging
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, Self, SupportsIndex

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from fno_telemetry.isolation.compilation import keep_uncompiled
from fno_telemetry.isolation.hooks import Hook
from fno_telemetry.keys import VALIDATION
from fno_telemetry.mapping.measurement_plan import MeasurementPlan
from fno_telemetry.processes.merging import NotTogether
from fno_telemetry.records import CaptureRecord
from fno_telemetry.session import check_step
from fno_telemetry.tracing.followed_calls import unfollowed
from fno_telemetry.tracing.module_calls import count_running, unwrap
from fno_telemetry.tracing.nested_tensors import tensors_in
from fno_telemetry.watching.delivery import Delivery
from fno_telemetry.watching.forward_state import ForwardState
from fno_telemetry.watching.live_line import LiveLine
from fno_telemetry.watching.loop_cost import LoopCost
from fno_telemetry.watching.nonfinite_checks import NonfiniteChecks
from fno_telemetry.watching.nonfinite_dump import Dump
from fno_telemetry.watching.own_forwards import OwnForwards, runs_own_forward
from fno_telemetry.watching.parameter_movement import ParameterMovement
from fno_telemetry.watching.schedule import Schedule
from fno_telemetry.watching.stages import Stage, Watched
from fno_telemetry.watching.step_measurement import (
    Finished,
    LoopFacts,
    Settings,
    StepMeasurement,
)
from fno_telemetry.watching.together import Together
from fno_telemetry.wording import describe_error, format_percent

_log = logging.getLogger("fno_telemetry")

TRAINING = "train"


class Scaler(Protocol):
    """What scales a loss for float16, such as `torch.amp.GradScaler`."""

    def get_scale(self) -> float:
        """Return the factor of the loss."""
        ...


class Watch:
    """Measures the forwards, the backward and the update of the due steps of a training loop.

    The first validation after such a step, which is forwards in eval mode, makes a record of its own. Between
    due steps the hook on the model looks at a flag. `fno_telemetry.watch` makes it.
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
        validation_batches: int = 0,
        dump: Dump | None = None,
        together: Together | None = None,
        cost: LoopCost | None = None,
        live_line: LiveLine | None = None,
    ) -> None:
        self.problems = delivery.problems.lines
        self._model = model
        self._root = unwrap(model)
        self._schedule = schedule
        self._optimizer = optimizer
        self._scaler = scaler
        self._settings = settings
        self._own = OwnForwards(model)
        self._movement = ParameterMovement(model)
        watched = Watched(model, self._own, self._movement, self._find_scale, tuple(layers), tuple(exclude))
        self._together = together
        self._training = Stage(TRAINING, watched, settings, plan)
        in_validation = replace(settings, gradients=False, updates=False, parameters=False)
        self._validation = Stage(VALIDATION, watched, in_validation, plan)
        self._most_of_validation = validation_batches
        self._validates = False  # whether forwards in eval mode are measured
        self._delivery = delivery
        self._last: int | None = None  # the last step that the loop named
        self._next = 0  # the one that is expected
        self._says_repetitions = True
        self._gap = 1
        self._recorded = 0
        self._lost = 0  # due steps that could not be recorded
        self._is_armed = self._schedule.is_due(0)
        self._is_owed = False  # whether the processes make a record of the running step
        self._ended: list[StepMeasurement] = []  # whose hooks are still to be removed
        self._is_asked = False  # for the step after the one that is measured
        self._thread = threading.get_ident()  # the one of the loop
        self._is_closed = False
        self._running: Stage | None = None  # the one of the forward that is measured
        self._seen_float16 = False
        self._checks: NonfiniteChecks | None = None
        if dump is not None:
            apart = partial(self._apart, self._training)
            note = delivery.problems.note
            self._checks = NonfiniteChecks(
                self._root, self._training, self._own, dump, note, apart, self._is_elsewhere
            )
        self._cost = cost or LoopCost()
        self._in_hooks = 0.0  # of the forward that runs, until now
        self._live_line = live_line
        self._ends: list[RemovableHandle] = []
        self._raised_before: BaseException | None = None  # the error that is handled around a forward
        # Hooks inside what is compiled would become a part of it.
        called = model if settings.is_compiled else self._root
        begin = Hook(self._forward_begins)
        # First, with the arguments as the loop gives them: a forward that is run again, as for the plan, goes
        # through the hooks that the model already has, which may change its arguments.
        self._handles = [called.register_forward_pre_hook(begin, with_kwargs=True, prepend=True)]
        if self._checks is not None:
            look = Hook(self._checks.look_at_output)
            self._handles.append(called.register_forward_hook(look, always_call=True))
        _watching[self._root] = weakref.ref(self)
        self._expect_step()

    @property
    def plan(self) -> MeasurementPlan | None:
        """How the model is measured; None before the first due step, unless it was given."""
        return self._training.plan

    @property
    def recorded(self) -> int:
        """How many records were handed to the sinks."""
        return self._recorded

    @property
    def seconds(self) -> float:
        """For how long the loop has waited for this watch, on the clock of the host."""
        return self._cost.seconds

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
        self._remove_hooks()
        self._end_validation()
        if self._checks is not None:
            self._checks.start_step(loss, step)
        self._training.expects_target = output is not None and target is not None
        if self._delivery.is_behind:
            with self._cost.counted():
                self._delivery.catch_up()
        measured = self._training.take()
        has_measured = measured is not None and measured.forwards > 0
        if has_measured or self._is_owed:
            if has_measured:
                # The running step is already measured.
                self._is_armed, self._is_asked = self._is_asked, False
            facts = LoopFacts(
                step=step,
                stage=TRAINING,
                loss=loss,
                output=output,
                target=target,
                learning_rates=self._read_learning_rates(),
                dropped=self._delivery.dropped + self._lost,
            )
            if self._finish(self._training, measured if has_measured else None, facts):
                self._validates = self._most_of_validation > 0
        if self._last is not None and step > self._last:
            self._gap = step - self._last
        elif self._last is not None:
            self._note_repetition(step, self._last)
        self._last = step
        self._next = step + self._gap
        # Where steps jump, one after the last step seen is due at the next one that there is.
        with self._noting("the schedule cannot be read"):
            self._is_armed = self._is_armed or self._schedule.is_due_between(step, self._next)
        self._expect_step()
        if self._live_line is not None:
            self._live_line.show()

    def validation(self, *, loss: object = None, output: object = None, target: object = None) -> None:
        """Say that a validation has ended; its record has these numbers, and the step that was named last.

        Without this call, a validation ends with the next forward in training mode, and its record has no
        loss. Where the validation is not one of those that are recorded, this does nothing.
        """
        if self._is_closed:
            return
        self._thread = threading.get_ident()
        self._remove_hooks()
        if self._validates and self._validation.measuring is None:
            self._delivery.problems.note(
                f"the validation after step {self._last} is not recorded: the forward of the model was not "
                "called in eval mode"
            )
        self._end_validation(loss, output, target)

    def resume(self, step: SupportsIndex) -> None:
        """Say that the next step is this one, as after a checkpoint; the first one is 0 by default."""
        self._next = check_step(step)
        self._end_validation()
        self._is_armed = self._schedule.is_due(self._next)
        self._last = None
        self._expect_step()

    def begin_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Measure a forward of the model that had begun when the watch was made, if the step is due."""
        self._forward_begins(module, args, kwargs)

    def capture_now(self) -> None:
        """Measure the next step, whatever the schedule says; call it in every process of a training."""
        self._is_armed = True
        self._is_asked = self._training.measuring is not None
        self._expect_step()

    def close(self) -> None:
        """Remove all hooks, and wait until the sinks have what was recorded."""
        if self._is_closed:
            return
        self._end_validation()
        self._is_closed = True
        if self._together is not None:
            self._together.leave()
        unnamed = self._training.measuring.forwards if self._training.measuring is not None else 0
        self._give_up(self._training)
        self._remove_hooks()
        was_armed, self._is_armed = self._is_armed, False
        self._remove_ends()
        for handle in self._handles:
            handle.remove()
        if self._checks is not None:
            self._checks.close()
        if not self._recorded and self._last is not None and not self.problems and was_armed:
            self._delivery.problems.note(
                "no step was recorded: the forward of the model was never called in training mode; watch the "
                "object that the loop calls"
            )
        # One forward alone may have raised the error that ends the loop.
        if not self._recorded and self._last is None and unnamed > 1 and not self.problems:
            self._delivery.problems.note(
                "no step was recorded: the model ran, but `watch.step` was never called; call it after each "
                "step of the optimizer"
            )
        self._handles.clear()
        if _find_watch(self._root) is self:
            del _watching[self._root]
        with self._cost.counted():
            self._delivery.close()
        if self._live_line is not None:
            self._live_line.close()
        if self._recorded:
            _log.info("fno-telemetry: %s", self._describe_cost())

    def _forward_begins(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if module.training:
            stage, is_due = self._training, self._is_armed
            if not (is_due or self._checks or self._ended or self._validation.measuring):
                return
        else:
            stage, is_due = self._validation, self._validates
            if not (is_due or self._ended):
                return
        if self._is_elsewhere() or _recomputes():
            return
        with self._cost.counted(), self._apart(stage):
            self._remove_hooks()
            if module.training:
                self._training_begins(args, kwargs)
            if is_due:
                self._begin(stage, module, args, kwargs)
                if stage.measuring is not None:
                    self._in_hooks = stage.measuring.forward_seconds

    def _training_begins(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._validation.measuring is not None:
            # The step ends with its record.
            self._measure_no_more(self._validation.measuring)
        if self._checks is not None:
            self._checks.start_forward(args, kwargs)

    def _measure_no_more(self, validated: StepMeasurement) -> None:
        """Keep what was measured of a validation for its record, and measure no further forward."""
        if self._validates:
            self._validates = False
            self._ended.append(validated)

    @keep_uncompiled
    def _begin(self, stage: Stage, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if stage is self._training and self._is_aside(stage.measuring):
            return
        measuring = stage.measuring or stage.start(args, kwargs)
        if measuring.is_running:
            if count_running(module) > 1:
                # The model calls itself: the outer call is measured.
                return
            # An interrupt ended the last forward without a word to hooks.
            self._remove_ends()
            self._give_up(stage)
            measuring = stage.start(args, kwargs)
        self._seen_float16 |= _runs_in_float16((args, kwargs))
        self._raised_before = sys.exc_info()[1]
        if self._settings.is_compiled:
            self._own.measure(measuring, ForwardState(self._root, args, kwargs))
        else:
            measuring.start_forward(module, args, kwargs)
        self._running = stage
        # After the hooks of what follows the forward, so that it sees the end of this call as well.
        self._ends.append(module.register_forward_hook(Hook(self._forward_ends), always_call=True))

    def _is_aside(self, measuring: StepMeasurement | None) -> bool:
        """Return whether a forward that begins has no gradients, unlike others of this step.

        Such as that of a teacher, or of a recalibration of a norm. What was measured of those is given up.
        """
        if measuring is None or measuring.is_running or measuring.learns == torch.is_grad_enabled():
            return False
        if not measuring.learns:
            self._give_up(self._training)
        return measuring.learns

    def _forward_ends(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        if self._is_elsewhere():
            return
        self._remove_ends()
        stage, self._running = self._running, None
        if stage is None or stage.measuring is None:
            return
        measuring = stage.measuring
        self._cost.add(measuring.forward_seconds - self._in_hooks)
        with self._cost.counted(), self._apart(stage):
            if self._settings.is_compiled:
                measuring.watch_output(output)
            else:
                measuring.end_forward()
            self._seen_float16 |= measuring.saw_float16
            if sys.exc_info()[1] is not self._raised_before:
                # The forward raised an error: the next one starts afresh.
                self._give_up(stage)
            elif stage is self._validation and measuring.forwards >= self._most_of_validation:
                self._measure_no_more(measuring)
        self._raised_before = None

    def _end_validation(self, loss: object = None, output: object = None, target: object = None) -> None:
        """Deliver the record of a validation that was measured, if there is one."""
        validated = self._validation.measuring
        if validated is None or self._last is None:
            return
        if validated.is_running:
            # An interrupt ended its last forward.
            self._give_up(self._validation)
            return
        self._validates = False
        self._validation.take()
        self._validation.expects_target = output is not None and target is not None
        dropped = self._delivery.dropped + self._lost
        facts = LoopFacts(self._last, VALIDATION, loss, output, target, dropped=dropped)
        if not self._finish(self._validation, validated, facts):
            self._validates = True

    def _expect_step(self) -> None:
        """Prepare for the next step, outside of its forwards, if it is due."""
        if self._checks is not None:
            self._checks.step = self._next
        self._is_owed = self._is_armed and self._together is not None and not self._together.is_over
        if self._is_owed and self._training.measuring is None:
            with self._noting("the parameters cannot be copied"):
                self._movement.copy_shares()

    def _finish(self, stage: Stage, measured: StepMeasurement | None, facts: LoopFacts) -> bool:
        """Deliver the record of what was measured; return whether it is as planned, so that there is one.

        Of a step that this process could not measure, `measured` is None: others wait for it.
        """
        if measured is not None:
            self._cost.add(measured.backward_seconds)
        with self._cost.counted():
            return self._finish_counted(stage, measured, facts)

    def _finish_counted(self, stage: Stage, measured: StepMeasurement | None, facts: LoopFacts) -> bool:
        is_whole = measured is not None and measured.deviation is None
        finished = None
        with self._apart(stage), torch.no_grad():
            if measured is not None and is_whole:
                finished = measured.finish(facts)
            elif measured is not None:
                # The forward has run already: the next one is followed, which needs no plan.
                stage.follows = True
                self._is_armed |= stage is self._training
                self._lost += 1
                what = (
                    f"step {facts.step}"
                    if stage is self._training
                    else f"the validation after step {facts.step}"
                )
                self._delivery.problems.note(
                    f"{what} is not recorded: a forward was not as planned: {measured.deviation}; "
                    "later ones are followed function by function"
                )
        if stage is self._training and self._together is not None and not self._together.is_over:
            is_whole = self._merge(self._together, measured, finished, facts)
        elif measured is not None and finished is not None:
            with self._apart(stage), torch.no_grad():
                self._deliver(measured.build(finished, warnings=self._list_warnings(stage)))
                if measured.misfit is not None:
                    # The loss may have compared them all the same, by broadcasting, and not what was meant.
                    self._delivery.problems.note(f"output and target are not compared: {measured.misfit}")
        if measured is not None:
            with self._noting("a step could not be ended"):
                measured.stop()
        return is_whole

    def _merge(
        self,
        together: Together,
        measured: StepMeasurement | None,
        finished: Finished | None,
        facts: LoopFacts,
    ) -> bool:
        """Deliver the record of all processes in the first one; return whether there is a record."""
        try:
            merged = together.merge(facts.step, None if finished is None else finished.measured)
        except NotTogether as why:
            self._is_armed = True
            if finished is not None:
                # Otherwise this process has said already what was wrong.
                self._lost += 1
                self._delivery.problems.note(f"step {facts.step} is not recorded: {why}")
            return False
        if measured is not None and finished is not None:
            with self._apart(self._training), torch.no_grad():
                if merged is not None or together.is_over:
                    self._deliver(measured.build(finished, merged, self._list_warnings(self._training)))
                else:
                    self._recorded += 1  # by the first process
        return finished is not None

    def _list_warnings(self, stage: Stage) -> tuple[str, ...]:
        """Return what a record says of the processes whose numbers it does not have."""
        if self._together is None:
            return ()
        if self._together.why_alone is not None:
            return (f"the numbers are those of the first process alone: {self._together.why_alone}",)
        if stage is self._validation:
            return ("the numbers are those of the first process alone, as of every validation",)
        return ()

    def _describe_cost(self) -> str:
        records = f"{self._recorded} record{'' if self._recorded == 1 else 's'}"
        share = format_percent(float(f"{self._cost.share:.2g}"))
        return (
            f"{records}; the loop waited {self._cost.seconds:.3g} s for the watch, {share} of its "
            f"{self._cost.elapsed:.3g} s"
        )

    def _deliver(self, record: CaptureRecord) -> None:
        self._delivery.deliver(record)
        if self._live_line is not None and not self._delivery.judges:
            self._live_line.take(record)
        self._recorded += 1
        if self._checks is not None and record.stage == TRAINING:
            self._checks.keep(record)

    def _note_repetition(self, step: int, last: int) -> None:
        """Say once that steps do not go on."""
        if self._says_repetitions:
            self._says_repetitions = False
            self._delivery.problems.note(
                f"step {step} comes after step {last}: of two records of one step only the later one counts; "
                f"let steps go on over epochs, or call `resume({step})` after a restart"
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

    def _give_up(self, stage: Stage) -> None:
        """Abandon the measurement of a stage that runs, if any."""
        measured = stage.take()
        if measured is not None:
            self._ended.append(measured)
            with self._noting("a step could not be ended"):
                measured.abandon()

    def _remove_hooks(self) -> None:
        """Remove the hooks of what has ended; not to be called while a hook after a forward runs."""
        ended, self._ended = self._ended, []
        for measured in ended:
            with self._noting("a step could not be ended"):
                measured.stop()

    @contextlib.contextmanager
    def _apart(self, stage: Stage) -> Iterator[None]:
        """Note an error of the block instead of raising it into the loop, and give up this step.

        A watch of a model around this one does not take the block for a part of that model.
        """
        try:
            with unfollowed():
                yield
        except (Exception, SystemExit) as error:  # noqa: BLE001 - nothing reaches the loop
            if stage is self._training:
                self._is_armed = False
            else:
                self._validates = False
            self._delivery.problems.note(f"a step could not be measured: {describe_error(error)}")
            self._give_up(stage)


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
