"""Sinks for the dashboards that a training program has opened itself."""

from collections.abc import Iterable

from fno_telemetry.sinks import Sink
from fno_telemetry.sinks.tensorboard.sink import TensorBoard
from fno_telemetry.sinks.wandb.sink import WandbRun


def make_sinks(dashboards: Iterable[object]) -> list[Sink]:
    """Return a sink for each TensorBoard writer and W&B run among these; others are left out."""
    sinks: list[Sink] = []
    for dashboard in dashboards:
        if hasattr(dashboard, "add_custom_scalars"):
            sinks.append(TensorBoard(dashboard))  # type: ignore[arg-type]
        elif hasattr(dashboard, "define_metric"):
            sinks.append(WandbRun(dashboard))  # type: ignore[arg-type]
    return sinks
