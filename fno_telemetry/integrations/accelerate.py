"""Watches a model that `accelerate` has prepared."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, Self

import torch
from torch import nn

from fno_telemetry.errors import OptionError
from fno_telemetry.integrations.dashboards import make_sinks
from fno_telemetry.sinks import Sink
from fno_telemetry.watching import watch as watching
from fno_telemetry.watching.loop_watch import Watch


class Accelerator(Protocol):
    """What is used of `accelerate.Accelerator`."""

    scaler: Any

    @property
    def is_main_process(self) -> bool:
        """Whether this process is the one that writes."""
        ...

    @property
    def sync_gradients(self) -> bool:
        """Whether the optimizer steps after this batch."""
        ...

    @property
    def trackers(self) -> Sequence[Any]:
        """The dashboards that were opened by `init_trackers`."""
        ...


def watch(
    accelerator: Accelerator,
    model: nn.Module,
    sinks: Iterable[Sink] | None = None,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    resume_at: int = 0,
    **options: Any,
) -> "AcceleratedWatch":
    """Watch a prepared model, with the options of `fno_telemetry.watch`.

        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        with ft.integrations.accelerate.watch(accelerator, model, optimizer=optimizer, every=100) as watch:
            for x, y in loader:
                with accelerator.accumulate(model):
                    ...
                    optimizer.step()
                    optimizer.zero_grad()
                watch.step(loss=loss, output=output, target=y)

    A step is one of the optimizer, whatever number of batches it accumulates; the first one has the number
    `resume_at`. Gradients are recorded without the factor of `accelerator.scaler`. Only the main process
    writes.

    Without `sinks`, records go to the TensorBoard writer and the W&B run of the accelerator's trackers.

    Raises:
        OptionError: an argument cannot be used, or there are no sinks.
        SinkUnavailable: a sink cannot be opened.
    """
    if isinstance(resume_at, bool) or not isinstance(resume_at, int) or resume_at < 0:
        raise OptionError(f"`resume_at` is {resume_at!r}; expected a whole number, 0 or more")
    if not accelerator.is_main_process:
        # It measures too: forwards of one process alone would wait for the others where they exchange values.
        sinks = []
    if sinks is None:
        sinks = make_sinks(tracker.tracker for tracker in accelerator.trackers)
        if not sinks:
            raise OptionError("the accelerator has no TensorBoard or W&B tracker; give `sinks`")
    made = watching.watch(
        model, sinks, optimizer=optimizer, scaler=accelerator.scaler, **{"progress": False} | options
    )
    made.resume(resume_at)
    return AcceleratedWatch(accelerator, made, resume_at)


class AcceleratedWatch:
    """Counts the steps of the optimizer in a loop with `accelerate`; `watch` makes it.

    `watch` is the `fno_telemetry.Watch` of the model.
    """

    def __init__(self, accelerator: Accelerator, watch: Watch, step: int) -> None:
        self.watch = watch
        self._accelerator = accelerator
        self._step = step
        self._losses: list[Any] = []  # of the batches of this step so far

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def step(self, *, loss: object = None, output: object = None, target: object = None) -> None:
        """Say that a batch has ended, after the optimizer's step, which `accelerate` leaves out for some.

        The recorded loss is the mean over the batches of a step; `output` and `target` are the last ones.
        """
        self._losses.append(loss.detach() if isinstance(loss, torch.Tensor) else loss)
        if not self._accelerator.sync_gradients:
            return
        losses, self._losses = self._losses, []
        if len(losses) > 1:
            loss = None if any(each is None for each in losses) else sum(losses) / len(losses)
        self.watch.step(self._step, loss=loss, output=output, target=target)
        self._step += 1

    def validation(self, *, loss: object = None, output: object = None, target: object = None) -> None:
        """Say that a validation has ended; the same as `fno_telemetry.Watch.validation`."""
        self.watch.validation(loss=loss, output=output, target=target)

    def close(self) -> None:
        """Remove all hooks, and wait until the sinks have what was recorded."""
        self.watch.close()
