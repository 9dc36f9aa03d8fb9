"""Forwards that a watch runs itself, besides those of the loop, which they do not affect."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from fno_telemetry.isolation.preservation import preserve
from fno_telemetry.mapping.detection import detect
from fno_telemetry.mapping.measurement_plan import MeasurementPlan
from fno_telemetry.tracing.module_calls import unwrap
from fno_telemetry.tracing.nested_tensors import copy_tensors
from fno_telemetry.watching.forward_state import ForwardState
from fno_telemetry.watching.step_measurement import StepMeasurement, as_batch

_in_this_thread = threading.local()  # .run: whether one of them runs


def runs_own_forward() -> bool:
    """Return whether such a forward runs in this thread, of any watch."""
    return getattr(_in_this_thread, "run", False)


class OwnForwards:
    """Runs a model as it is, in the mode that it is in, without its wrappers and without gradients."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._root = unwrap(model)

    def make_plan(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> MeasurementPlan:
        """Return the plan of the model in training, from a forward of a sample with these arguments."""
        state = ForwardState(self._root, args, kwargs)
        with _marked(), state.put_back(), preserve(self._model) as preserved, torch.no_grad():
            batch, run = as_batch(args, kwargs), self._runner(args, kwargs)
            return detect(self._model, batch, run, None, preserved, in_training=True).plan

    def measure(self, measured: StepMeasurement, state: ForwardState) -> None:
        """Measure a forward of the same arguments that begins in this state."""
        batch = copy_tensors(as_batch(state.args, state.kwargs))
        with _marked(), state.put_back(), preserve(self._model, parameters=False), torch.no_grad():
            measured.run_forward(batch, self._runner(state.args, state.kwargs))

    def _runner(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[Any], object]:
        """Return what runs the model on a batch that was made of such arguments."""

        def run(batch: Any) -> object:
            if not kwargs:
                return self._root(batch) if len(args) == 1 else self._root(*batch)
            return self._root(*batch[:-1], **batch[-1]) if args else self._root(**batch)

        return run


@contextmanager
def _marked() -> Iterator[None]:
    _in_this_thread.run = True
    try:
        yield
    finally:
        _in_this_thread.run = False
