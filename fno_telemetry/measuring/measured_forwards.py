"""Runs the forwards of a capture: as planned, or followed by functions where the plan does not hold."""

import contextlib
from collections.abc import Callable, Collection
from typing import Any, Protocol, Self

from torch import nn

from fno_telemetry.isolation.preservation import Preserved
from fno_telemetry.isolation.random_states import RandomStates, list_devices
from fno_telemetry.mapping.measurement_plan import MeasurementPlan
from fno_telemetry.measuring.planned_forward import PlannedForward
from fno_telemetry.tracing.events import Listener
from fno_telemetry.tracing.forward_trace import ForwardTrace
from fno_telemetry.tracing.nested_tensors import copy_tensors


class ForwardListener(Listener, Protocol):
    """A listener that can be told that a forward is run once more."""

    def start_again(self) -> None:
        """Prepare for the events of the same batch again; those that were already sent are to be ignored."""
        ...


class MeasuredForwards:
    """Has the hooks of a plan on a model between enter and exit.

    A forward that is not as planned is run once more, with the states that it began with, and followed
    function by function; so are all later ones, since following costs less than running twice. `deviations`
    has a line for the first one.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: MeasurementPlan,
        listener: ForwardListener,
        names: Collection[str],
        looks_at_modes: bool = False,
    ) -> None:
        self.deviations: list[str] = []
        self._model = model
        self._plan = plan
        self._listener = listener
        self._planned = PlannedForward(model, plan, listener, names, looks_at_modes=looks_at_modes)
        self._trace: ForwardTrace | None = None
        self._follows = plan.why_traced is not None
        self._devices = list_devices(model.parameters())
        self._exits = contextlib.ExitStack()

    @property
    def seconds(self) -> float:
        """The time spent in hooks and in the listener."""
        return self._planned.seconds + (self._trace.seconds if self._trace is not None else 0)

    @property
    def unasked(self) -> frozenset[str]:
        """The activation functions that are planned and not looked at, because nobody asks for them."""
        return frozenset() if self._follows else self._planned.unasked

    @property
    def outside(self) -> frozenset[str]:
        """The paths of modules called outside of the model's own forward, which are not measured."""
        return frozenset(self._planned.outside | (self._trace.outside if self._trace is not None else set()))

    def __enter__(self) -> Self:
        if not self._follows:
            self._exits.enter_context(self._planned)
        return self

    def __exit__(self, *exception: object) -> None:
        self._exits.close()

    def aside(self, where: str, body: Callable[[], None]) -> None:
        """Run `body` without any effect on a forward; an error that it raises becomes a `Failed` event."""
        self._planned.aside(where, body)

    def run(self, batch: Any, run: Callable[[Any], object]) -> None:
        """Run one batch and measure it."""
        if self._follows:
            self._follow(batch, run)
            return
        before = RandomStates(self._devices)
        state = Preserved(self._model, parameters=False)
        unwritten = copy_tensors(batch)
        with self._planned.run(batch):
            run(batch)
        if self._planned.deviation is None:
            return
        self.deviations.append(self._planned.deviation)
        self._listener.start_again()
        self._follows = True
        before.put_back()
        state.put_back()
        self._follow(unwritten, run)

    def _follow(self, batch: Any, run: Callable[[Any], object]) -> None:
        if self._trace is None:
            found = self._plan.model_map
            self._trace = ForwardTrace(self._model, self._listener, found.roles, within=found.runs_whole)
            self._exits.enter_context(self._trace)
        with self._trace.batch():
            run(batch)
