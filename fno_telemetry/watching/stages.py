"""A stage of a loop, training or validation: the plan of its forwards, and what measures those that run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from fno_telemetry.mapping.layer_filters import select_names
from fno_telemetry.mapping.measurement_plan import MeasurementPlan
from fno_telemetry.watching.own_forwards import OwnForwards
from fno_telemetry.watching.parameter_movement import ParameterMovement
from fno_telemetry.watching.step_measurement import Settings, StepMeasurement


@dataclass(frozen=True)
class Watched:
    """A model that is watched, and what all stages of its loop share."""

    model: nn.Module
    own: OwnForwards
    movement: ParameterMovement
    find_scale: Callable[[], float | None]
    layers: Sequence[str] = ()
    exclude: Sequence[str] = ()


class Stage:
    """Makes what measures the forwards of one stage, by a plan of the mode that the model is then in.

    Without `plan` the first of its forwards makes one.
    """

    def __init__(
        self, name: str, watched: Watched, settings: Settings, plan: MeasurementPlan | None = None
    ) -> None:
        self.name = name
        self.plan = plan
        self.follows = False  # function by function, where a forward was not as planned
        self.expects_target = True  # until a step had none
        self.measuring: StepMeasurement | None = None
        self._watched = watched
        self._settings = settings
        self._forwards = 0  # of the last step that was measured

    def start(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> StepMeasurement:
        """Begin to measure forwards of the model with such arguments."""
        self.measuring = self._prepare(
            args, kwargs, self._settings, self.follows, expects_target=self.expects_target
        )
        return self.measuring

    def prepare_again(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> StepMeasurement:
        """Return what measures a forward once more, without a backward and an update."""
        settings = replace(self._settings, gradients=False, updates=False)
        return self._prepare(args, kwargs, settings, follows=True, is_only_forward=True)

    def take(self) -> StepMeasurement | None:
        """Return what has measured forwards, if anything, and forget it."""
        measured, self.measuring = self.measuring, None
        if measured is not None and measured.forwards:
            self._forwards = measured.forwards
        return measured

    def _prepare(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        settings: Settings,
        follows: bool,
        is_only_forward: bool = False,
        expects_target: bool = False,
    ) -> StepMeasurement:
        watched = self._watched
        if self.plan is None:
            self.plan = watched.own.make_plan(args, kwargs)
        if settings.parameters:
            watched.movement.keep_first()
        return StepMeasurement(
            watched.model,
            self.plan,
            select_names(self.plan.model_map, watched.layers, watched.exclude),
            settings,
            watched.movement,
            watched.find_scale,
            follows,
            # Of several processes, other batches come.
            is_only_forward=is_only_forward or (self._forwards == 1 and not settings.takes_shares),
            expects_target=expects_target,
        )
