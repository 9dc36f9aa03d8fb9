"""What is measured of one due step: its forwards, its backward, its update, and the record made of them."""

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import nn

from fno_telemetry.mapping.detection import count_samples
from fno_telemetry.mapping.measurement_plan import MeasurementPlan
from fno_telemetry.measuring.accumulators import MemoryBudget
from fno_telemetry.measuring.awaited_gradients import Branches
from fno_telemetry.measuring.collector import Collector
from fno_telemetry.measuring.record_builder import Run, Seconds, build_record
from fno_telemetry.measuring.statistic_set import StatisticSet
from fno_telemetry.measuring.target_collector import explain_misfit
from fno_telemetry.processes.merging import Merged
from fno_telemetry.processes.rows import Measured
from fno_telemetry.records import CaptureRecord, freeze_mapping
from fno_telemetry.statistics.contract import OF_GRADIENTS, SummedState
from fno_telemetry.statistics.host_transfer import on_host
from fno_telemetry.statistics.weights import NormState
from fno_telemetry.tracing.events import Listener
from fno_telemetry.tracing.nested_tensors import tensors_in
from fno_telemetry.watching.live_forwards import Listeners, LiveForwards
from fno_telemetry.watching.loop_gradients import SPREAD, GradientNorm, LoopGradients
from fno_telemetry.watching.parameter_movement import ParameterMovement
from fno_telemetry.watching.step_parameters import ParameterNorms, StepParameters


@dataclass(frozen=True)
class Settings:
    """What a watch measures in every due step."""

    statistics: StatisticSet
    memory_limit: int
    budget: str
    gradients: bool
    updates: bool
    is_compiled: bool = False  # forwards of our own are measured, not those of the loop
    parameters: bool = True  # how far each one moved, and what modules learn
    takes_shares: bool = False  # of parameters that are spread over processes


@dataclass(frozen=True)
class LoopFacts:
    """What a loop says of a step when it has ended."""

    step: int
    stage: str
    loss: object = None
    output: object = None
    target: object = None
    learning_rates: tuple[float, ...] | None = None
    dropped: int = 0
    nonfinite: str | None = None  # "output", if that is not finite


@dataclass(frozen=True)
class LossSum(SummedState):
    """The losses of processes that gave one."""

    total: float
    number: int


@dataclass(frozen=True)
class Finished:
    """All that was measured of a step, and what its record is made of besides."""

    facts: LoopFacts
    measured: Measured
    loss: float | None
    wall: float
    norms: Mapping[str, ParameterNorms]


class StepMeasurement:
    """Measures the forwards of one step between `start_forward` and `end_forward`, and the loop's backward.

    `names` are the modules to measure. With `follows`, forwards are followed function by function. With
    `is_only_forward` no mean fields are kept, so that `sample_variation` is null if there is a second one.
    With `expects_target`, what only a target makes use of is measured.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: MeasurementPlan,
        names: frozenset[str],
        settings: Settings,
        movement: ParameterMovement,
        scale: Callable[[], float | None],
        follows: bool,
        is_only_forward: bool = False,
        expects_target: bool = False,
    ) -> None:
        self.forwards = 0
        self.misfit: str | None = None  # why the output and the target that the loop gave cannot be compared
        self.learns = torch.is_grad_enabled()
        self._model = model
        self._plan = plan
        self._settings = settings
        self._started = time.perf_counter()
        memory = MemoryBudget(settings.memory_limit)
        self._collector = Collector(
            plan.model_map,
            settings.statistics,
            names,
            memory,
            is_light=settings.budget == "light",
            is_only_batch=is_only_forward,
            has_target=expects_target,
        )
        self._parameters = StepParameters(model, movement, names)
        self._gradients = (
            LoopGradients(
                model,
                settings.statistics,
                names,
                memory,
                scale,
                self._parameters.alone,
                sees_outputs=not settings.is_compiled,
                takes_shares=settings.takes_shares,
            )
            if settings.gradients
            else None
        )
        listeners: list[Listener] = [self._collector]
        if self._gradients is not None:
            listeners.append(self._gradients)
        of_modes = bool(settings.statistics.of("spectral_input"))
        self._live = LiveForwards(model, plan, Listeners(listeners), names, follows, of_modes)
        self._samples = self._batch_size = 0
        self._last_ended = self._started
        self.deviation: str | None = None

    @property
    def saw_float16(self) -> bool:
        """Whether a module has returned float16, of which a loss is usually scaled."""
        return any(module.dtype == "float16" for module in self._collector.modules.values())

    @property
    def forward_seconds(self) -> float:
        """The time spent in hooks of forwards."""
        return self._live.seconds

    @property
    def backward_seconds(self) -> float:
        """The time spent at the end of the loop's backwards."""
        return 0.0 if self._gradients is None else self._gradients.seconds

    @property
    def is_running(self) -> bool:
        """Whether a forward is being measured."""
        return self._live.is_running

    def start_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Begin to measure a forward of this module that has begun already."""
        batch = as_batch(args, kwargs)
        self._start_batch(batch)
        self._live.start(module, args, kwargs, batch)

    def run_forward(self, batch: Any, run: Callable[[Any], object]) -> None:
        """Measure a forward that `run` makes itself."""
        self._start_batch(batch)
        self._live.run(batch, run)
        self._end_batch()

    def watch_output(self, output: object) -> None:
        """Let the gradient of an output of the loop's own forward tell when its backward runs."""
        if self._gradients is not None and self._settings.is_compiled:
            self._gradients.watch_output(output)

    def end_forward(self) -> None:
        """End the forward that was started."""
        self._live.end()
        self._end_batch()

    def _start_batch(self, batch: Any) -> None:
        size = count_samples(batch)
        if not self.forwards and self._settings.updates:
            self._parameters.start()
        self.forwards += 1
        self._samples += size or 1
        self._batch_size = max(self._batch_size, size or 1)
        with torch.no_grad(), torch._C._DisableAutocast(), torch._C.DisableTorchFunction():
            self._collector.start_batch(batch, size)

    def _end_batch(self) -> None:
        self.deviation = self.deviation or self._live.deviation
        self._collector.end_batch()
        self._last_ended = time.perf_counter()
        if self._gradients is not None:
            blocks = {key: Branches(b.spectral, b.local) for key, b in self._collector.blocks.items()}
            self._gradients.expect(self._collector.modules, blocks)

    def abandon(self) -> None:
        """Measure no more, and release all tensors; hooks on modules stay, and do nothing.

        A hook must not remove others of the call in which it runs: torch would still call them, wrongly.
        """
        with contextlib.ExitStack() as stack:
            stack.callback(self._parameters.forget)
            if self._gradients is not None:
                stack.callback(self._gradients.forget)
            stack.callback(self._collector.end_batch)
            self._live.end()

    def stop(self) -> None:
        """Do the same, and remove all hooks."""
        try:
            self.abandon()
        finally:
            self._live.detach()

    def make_record(self, facts: LoopFacts) -> CaptureRecord:
        """Return the record of the step, after its update, or of a validation."""
        return self.build(self.finish(facts))

    def finish(self, facts: LoopFacts) -> Finished:
        """Measure what is left of the step, after its update, or of a validation."""
        loss = read_number(facts.loss)
        self._compare(facts)
        gradients = None if self._gradients is None else self._gradients.finish(loss)
        self._collector.fired |= self._live.unasked
        self._collector.move_to_host()
        norms = self._parameters.measure() if self._settings.parameters else {}
        extras: dict[str, SummedState] = {}
        if loss is not None:
            extras["loss"] = LossSum(loss, 1)
        for name, norm in self._parameters.list_spread(norms).items():
            extras[f"{_PARAMETER}{name}"] = norm
        if self._gradients is not None:
            for name, alone in self._gradients.list_alone().items():
                extras[f"{_GRADIENT}{name}"] = alone
        measured = Measured(
            self._collector,
            gradients,
            samples=self._samples,
            batch_size=self._batch_size,
            forwards=self.forwards,
            called_outside=self._live.outside,
            extras=on_host(extras),
            is_spread=self._gradients is not None and self._gradients.are_shares,
        )
        # The training goes on after a validation before its record is made.
        ended = time.perf_counter() if self._settings.parameters else self._last_ended
        return Finished(facts, measured, loss, ended - self._started, norms)

    def build(
        self, finished: Finished, merged: Merged | None = None, warnings: tuple[str, ...] = ()
    ) -> CaptureRecord:
        """Return the record of what was measured here, or in all processes if they have merged it."""
        facts, settings, measured = finished.facts, self._settings, finished.measured
        loss, gradients, forwards = finished.loss, measured.gradients, measured.forwards
        spread = self._parameters.list_spread(finished.norms)
        norms = {name: own for name, own in finished.norms.items() if name not in spread}
        telemetry = self._live.seconds
        run = Run(
            samples=measured.samples,
            batch_size=measured.batch_size,
            digest=None,
            seconds=Seconds(finished.wall, max(finished.wall - telemetry, 0.0), telemetry, 0.0),
            called_outside=measured.called_outside,
            budget=settings.budget,
        )
        if merged is not None:
            run, gradients, forwards = merged.describe(run), merged.gradients, merged.forwards
            loss = _mean_loss(merged.extras.get("loss"))
            if gradients is not None:
                gradients = replace(gradients, loss=loss)
            norms |= _select(merged.extras, _PARAMETER, ParameterNorms)
            if self._gradients is not None:
                self._gradients.take_alone(_select(merged.extras, _GRADIENT, GradientNorm))
        else:
            self._forget_shares(measured)
        record = build_record(
            self._model,
            self._plan,
            self._collector,
            run,
            gradients,
            settings.statistics.foreign_quantities,
            {"checkpoint_step": facts.step, "step_kind": "step", "loss": loss},
            {},
            (*warnings, *self._plan.model_map.warnings),
        )
        training: dict[str, Any] = {"stage": facts.stage, "forwards": forwards, "dropped": facts.dropped}
        if facts.nonfinite is not None:
            training["nonfinite"] = facts.nonfinite
        if facts.learning_rates is not None:
            training["learning_rates"] = facts.learning_rates
        record = replace(record, training=freeze_mapping(training))
        if not settings.parameters:
            return record
        return replace(
            record,
            modules=self._parameters.with_updates(record.modules, norms),
            parameters=self._parameters.list_records(norms, self._gradients),
        )

    def _forget_shares(self, measured: Measured) -> None:
        """Make numbers null of which this process knows only its share."""
        for module in self._collector.modules.values():
            weights = module.states.find("weight_norm")
            if isinstance(weights, NormState) and float(weights.share):
                module.states.mark_undefined("weights", SPREAD)
        if measured.gradients is not None and measured.is_spread:
            for states in (*measured.gradients.modules.values(), *measured.gradients.blocks.values()):
                for kind in OF_GRADIENTS:
                    states.mark_undefined(kind, SPREAD)

    def _compare(self, facts: LoopFacts) -> None:
        """Compare the output that the loop gave with its target."""
        if facts.output is None or facts.target is None:
            return
        output, target = (next(tensors_in(side), None) for side in (facts.output, facts.target))
        if output is None or target is None:
            return
        with torch.no_grad(), torch._C._DisableAutocast(), torch._C.DisableTorchFunction():
            if (why := explain_misfit(output, target)) is not None:
                self.misfit = f"{why}; give `step` what the loss compares"
                self._collector.target.mark_undefined(self.misfit)
            else:
                self._collector.compare(output.detach(), target.detach())
                self._collector.end_batch()


_PARAMETER, _GRADIENT = "parameter/", "gradient/"
"""The beginnings of the names of norms that processes add up."""

_Extra = TypeVar("_Extra")


def _select(extras: Mapping[str, Any], start: str, kind: type[_Extra]) -> dict[str, _Extra]:
    """Return the extras of this kind without the start of their names."""
    found = {name: own for name, own in extras.items() if name.startswith(start)}
    return {name.removeprefix(start): own for name, own in found.items() if isinstance(own, kind)}


def _mean_loss(losses: LossSum | None) -> float | None:
    """Return the mean of the losses of processes, of which DDP and FSDP have the gradients."""
    if losses is None or not math.isfinite(losses.total):
        return None
    return losses.total / losses.number


def as_batch(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return the arguments of a forward as a batch: a tensor, a tuple, or a dict of arguments by name."""
    if not kwargs:
        return args[0] if len(args) == 1 else args
    return dict(kwargs) if not args else (*args, dict(kwargs))


def is_scalar(value: object) -> bool:
    """Return whether this is a number, or a tensor of one element."""
    if isinstance(value, torch.Tensor):
        return value.numel() == 1
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_number(value: object) -> float | None:
    """Return a number or a tensor of one element as a finite float; None for anything else."""
    if not is_scalar(value):
        return None
    number = value.detach().item() if isinstance(value, torch.Tensor) else value
    return float(number) if isinstance(number, int | float) and abs(number) < float("inf") else None
