"""Measures the forwards that a training loop runs itself, between hooks on the model."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from fno_telemetry.mapping.measurement_plan import MeasurementPlan
from fno_telemetry.measuring.planned_forward import PlannedForward
from fno_telemetry.tracing.events import Event, Listener
from fno_telemetry.tracing.forward_trace import ForwardTrace


class Listeners:
    """Gives each event to several listeners, in order."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = listeners

    def on(self, event: Event) -> None:
        """Give the event to all."""
        for listener in self._listeners:
            listener.on(event)


class LiveForwards:
    """Has hooks on all modules of a model from the first `start` to `detach`, and measures whole forwards.

    They are measured as planned, or, with `follows`, followed function by function.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: MeasurementPlan,
        listener: Listener,
        names: frozenset[str],
        follows: bool,
        looks_at_modes: bool,
    ) -> None:
        found = plan.model_map
        self._followed: PlannedForward | ForwardTrace
        if follows or plan.why_traced is not None:
            self._followed = ForwardTrace(model, listener, found.roles, within=found.runs_whole)
        else:
            self._followed = PlannedForward(model, plan, listener, names, looks_at_modes=looks_at_modes)
        self._running: contextlib.AbstractContextManager[None] | None = None
        self._is_attached = False

    @property
    def deviation(self) -> str | None:
        """Where the last forward was not as planned, so that its numbers are incomplete; None if it was."""
        return self._followed.deviation if isinstance(self._followed, PlannedForward) else None

    @property
    def seconds(self) -> float:
        """The time spent in hooks and in the listener."""
        return self._followed.seconds

    @property
    def outside(self) -> frozenset[str]:
        """The paths of modules called outside of the model's own forward, which are not measured."""
        return frozenset(self._followed.outside)

    @property
    def unasked(self) -> frozenset[str]:
        """The activation functions that are planned and not looked at."""
        return self._followed.unasked if isinstance(self._followed, PlannedForward) else frozenset()

    @property
    def is_running(self) -> bool:
        """Whether a forward is being measured."""
        return self._running is not None

    def start(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], batch: Any) -> None:
        """Begin to measure a forward of this module that has begun already, with this batch."""
        is_late = not self._is_attached
        if is_late:
            self._followed.__enter__()
            self._is_attached = True
        followed = self._followed
        # A model inside of this one may be watched as well, or one around it.
        followed.joins = True
        self._running = followed.run(batch) if isinstance(followed, PlannedForward) else followed.batch()
        self._running.__enter__()
        if is_late:
            # Its own hook is not called any more in this call.
            self._followed.start_late(module, args, kwargs)

    def end(self) -> None:
        """End the forward that was started."""
        if self._running is not None:
            running, self._running = self._running, None
            running.__exit__(None, None, None)

    def run(self, batch: Any, run: Callable[[Any], object]) -> None:
        """Measure a forward that `run` makes itself."""
        followed = self._followed
        followed.joins = False
        with (
            followed,
            followed.run(batch) if isinstance(followed, PlannedForward) else followed.batch(),
        ):
            run(batch)

    def detach(self) -> None:
        """End a forward that raised, and remove all hooks."""
        try:
            self.end()
        finally:
            if self._is_attached:
                self._is_attached = False
                self._followed.__exit__()
