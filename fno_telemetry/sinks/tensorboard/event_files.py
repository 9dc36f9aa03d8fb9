"""Reads the curves of TensorBoard's event files back."""

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fno_telemetry.errors import MissingExtra, SinkUnavailable
from fno_telemetry.keys import VALIDATION
from fno_telemetry.sinks.tensorboard.markdown import NO_STEP

TEXT_TAG = "report"
"""The tag of the table; SummaryWriter shows it as `report/text_summary`."""

_TABLES = (f"{TEXT_TAG}/text_summary", f"{VALIDATION}/{TEXT_TAG}/text_summary")


def read_numbers(files: Iterable[Path]) -> dict[int | None, dict[str, float]]:
    """Return step -> tag -> value of all curves in these files; the last value where there are several.

    TensorBoard needs a step, so that a record without one is at step 0; its table says that it has none.
    """
    loader = _event_file_loader()
    found: dict[int | None, dict[str, float]] = {}
    for file in files:
        # A record's curves come before its table, which says whether they have a step.
        waiting: dict[int, dict[str, float]] = {}
        for event in loader(str(file)).Load():
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    waiting.setdefault(event.step, {})[value.tag] = value.simple_value
                elif value.tag in _TABLES:
                    text = value.tensor.string_val[0].decode()
                    step = None if text.startswith(NO_STEP) else event.step
                    found.setdefault(step, {}).update(waiting.pop(event.step, {}))
        for step, values in waiting.items():
            found.setdefault(step, {}).update(values)
    return found


def silence_writer_thread(writer: Any) -> None:
    """Keep the thread that writes a SummaryWriter's events from printing why it failed, as on a full disk.

    The next call of the writer raises that error.
    """
    # Not a public interface; without it a traceback is printed in addition to our line.
    with contextlib.suppress(AttributeError):
        worker = writer.file_writer.event_writer._async_writer._worker
        worker._invoke_excepthook = lambda thread: None


def as_unavailable(error: ImportError) -> SinkUnavailable:
    """Return the error that says what to do when tensorboard cannot be imported."""
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == "tensorboard":
        return MissingExtra(
            "The tensorboard sink needs tensorboard: pip install 'fno-telemetry[tensorboard]'."
        )
    return SinkUnavailable(f"The installed tensorboard cannot be imported: {error}")


def _event_file_loader() -> Any:
    try:
        from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
    except ImportError as error:
        raise as_unavailable(error) from error
    return LegacyEventFileLoader
