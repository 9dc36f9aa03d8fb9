"""What is measured of one due step: its forwards, its backward, its update, and the record made of them."""

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

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
from fno_telemetry.records import (
    CaptureRecord,
    FrozenMapping,
    ModuleRecord,
    ParameterRecord,
    Value,
    freeze_mapping,
)
from fno_telemetry.statistics.gradients import trained_parameters
from fno_telemetry.statistics.norms import frobenius_norm
from fno_telemetry.tracing.events import Listener
from fno_telemetry.tracing.module_calls import modules_by_path
from fno_telemetry.tracing.nested_tensors import tensors_in
from fno_telemetry.tracing.parameter_names import name_parameters
from fno_telemetry.watching.live_forwards import Listeners, LiveForwards
from fno_telemetry.watching.loop_gradients import LoopGradients
from fno_telemetry.watching.parameter_movement import (
    ParameterMovement,
    is_spread,
    make_record,
    relate,
)

_NO_UPDATE = "the parameters were not copied before the step"
_SPREAD = "the parameter is spread over several processes"
_FROZEN = "the parameter is frozen: its requires_grad is False"


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
        self.learns = torch.is_grad_enabled()
        self._model = model
        self._plan = plan
        self._settings = settings
        self._movement = movement
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
        self._spread = {name for name, p in name_parameters(model) if is_spread(p)}
        self._alone = self._find_alone(names)
        self._gradients = (
            LoopGradients(
                model, settings.statistics, names, memory, scale, self._alone, not settings.is_compiled
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
        self._updates_copied = False
        self.deviation: str | None = None

    @property
    def saw_float16(self) -> bool:
        """Whether a module has returned float16, of which a loss is usually scaled."""
        return any(module.dtype == "float16" for module in self._collector.modules.values())

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
            self._movement.start_step()
            self._updates_copied = True
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
            if self._updates_copied:
                # Once: another measurement may have made copies since.
                self._updates_copied = False
                stack.callback(self._movement.forget_step)
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
        loss = read_number(facts.loss)
        self._compare(facts)
        gradients = None if self._gradients is None else self._gradients.finish(loss)
        self._collector.fired |= self._live.unasked
        settings = self._settings
        # The training goes on after a validation before its record is made.
        wall = (time.perf_counter() if settings.parameters else self._last_ended) - self._started
        record = build_record(
            self._model,
            self._plan,
            self._collector,
            Run(
                samples=self._samples,
                batch_size=self._batch_size,
                digest=None,
                seconds=Seconds(wall, max(wall - self._live.seconds, 0.0), self._live.seconds, 0.0),
                called_outside=self._live.outside,
                budget=settings.budget,
            ),
            gradients,
            settings.statistics.foreign_quantities,
            {"checkpoint_step": facts.step, "step_kind": "step", "loss": loss},
            {},
            tuple(self._plan.model_map.warnings),
        )
        training: dict[str, Any] = {"stage": facts.stage, "forwards": self.forwards, "dropped": facts.dropped}
        if facts.nonfinite is not None:
            training["nonfinite"] = facts.nonfinite
        if facts.learning_rates is not None:
            training["learning_rates"] = facts.learning_rates
        record = replace(record, training=freeze_mapping(training))
        if not settings.parameters:
            return record
        updates = self._movement.measure_updates() if self._updates_copied else {}
        return replace(
            record,
            modules=self._with_updates(record.modules, updates),
            parameters=self._list_parameters(updates, self._movement.measure_moves()),
        )

    def _compare(self, facts: LoopFacts) -> None:
        """Compare the output that the loop gave with its target."""
        if facts.output is None or facts.target is None:
            return
        output, target = (next(tensors_in(side), None) for side in (facts.output, facts.target))
        if output is None or target is None:
            return
        with torch.no_grad(), torch._C._DisableAutocast(), torch._C.DisableTorchFunction():
            if (why := explain_misfit(output, target)) is not None:
                self._collector.target.mark_undefined(f"{why}; give `step` what the loss compares")
            else:
                self._collector.compare(output.detach(), target.detach())
                self._collector.end_batch()

    def _find_alone(self, names: frozenset[str]) -> dict[str, nn.Parameter]:
        """Return the parameters that belong to no measured module, by name."""
        modules = modules_by_path(self._model)
        covered = {id(p) for name in names if name in modules for p in trained_parameters(modules[name])}
        named = name_parameters(self._model)
        return {name: p for name, p in named if id(p) not in covered and name not in self._spread}

    def _with_updates(
        self, modules: tuple[ModuleRecord, ...], updates: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
    ) -> tuple[ModuleRecord, ...]:
        """Return the records with ‖update‖ / ‖weights‖ of each module, in that of its first output."""
        named = {id(p): name for name, p in name_parameters(self._model)}
        by_path = modules_by_path(self._model)
        seen = set()
        changed = []
        for record in modules:
            module = by_path.get(record.name)
            own = [named[id(p)] for p in trained_parameters(module)] if module is not None else []
            if not own or record.name in seen:
                changed.append(record)
                continue
            seen.add(record.name)
            value, reason = self._relate_update(own, updates)
            reasons = record.reasons if reason is None else {**record.reasons, "update_to_weight": reason}
            changed.append(
                replace(
                    record,
                    stats=FrozenMapping({**record.stats, "update_to_weight": value}),
                    reasons=FrozenMapping(reasons),
                )
            )
        return tuple(changed)

    def _relate_update(
        self, names: list[str], updates: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
    ) -> tuple[Value, str | None]:
        if not self._updates_copied:
            return None, _NO_UPDATE
        known = [updates[name] for name in names if name in updates]
        if not known:
            return None, _SPREAD if any(name in self._spread for name in names) else _FROZEN
        change, size = (float(frobenius_norm(torch.stack(column))) for column in zip(*known, strict=True))
        return relate(change, size)

    def _list_parameters(
        self,
        updates: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
        moves: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
    ) -> tuple[ParameterRecord, ...]:
        """Return how far every parameter moved; more of those that belong to no measured module."""
        records = []
        for name, parameter in name_parameters(self._model):
            numbers: dict[str, tuple[Value, str | None]] = {}
            if name in self._spread:
                records.append(make_record(name, parameter, {"moved": (None, _SPREAD)}))
                continue
            if name in self._alone:
                norm = float(frobenius_norm(parameter))
                is_finite = norm < float("inf")
                numbers["weight_norm"] = (norm, None) if is_finite else (None, "the parameter is not finite")
                numbers["update_to_weight"] = self._relate_update([name], updates)
                if self._gradients is not None:
                    numbers["grad_norm"] = self._gradients.norm_of(name)
            move = moves.get(name)
            numbers["moved"] = (
                (None, "the parameter changed its size")
                if move is None
                else relate(float(move[0]), float(move[1]))
            )
            records.append(make_record(name, parameter, numbers))
        return tuple(records)


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
