"""Runs a user's model: the record, a progress bar, and what its forward raises as one line."""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import fno_telemetry as ft
from fno_telemetry import sources
from fno_telemetry_cli.capturing.preparing import Prepared
from fno_telemetry_cli.showing.tables import notes
from fno_telemetry_cli.showing.terminal import stderr_console

_NO_MEMORY = re.compile(r"out of memory|not enough memory|allocate memory", re.I)


@contextlib.contextmanager
def errors_in_one_line(prepared: Prepared) -> Iterator[None]:
    """Turn whatever the model's forward raises into a ModelError that names it."""
    try:
        yield
    except ft.TelemetryError as error:
        if isinstance(error, ft.OptionError) and str(error).startswith("the loss "):
            raise ft.OptionError(f"--loss {prepared.provenance['loss']}: {error}") from error
        raise
    except (Exception, SystemExit) as error:  # a user's forward may raise anything
        text = str(error).strip().splitlines()
        detail = f"{type(error).__name__}: {text[0].rstrip('.')}" if text else type(error).__name__
        raise ft.ModelError(
            f"The forward of {type(prepared.model).__name__} failed with {detail}.{_advice(error, prepared)}"
        ) from error


def _advice(error: BaseException, prepared: Prepared) -> str:
    """Return what the batch was taken to be and the option that changes it; "" for an error elsewhere."""
    # The last: of an error that a model raises again and again, the first is of another batch.
    found = getattr(error, "__notes__", ())
    notes_on_batches = [note for note in found if note.startswith(sources.BATCH_NOTE)]
    batch = notes_on_batches[-1].removeprefix(sources.BATCH_NOTE) if notes_on_batches else ""
    choices = [note for note in found if note.startswith(sources.CHOICE_NOTE)]
    choice = f" {choices[-1].removeprefix(sources.CHOICE_NOTE)}" if choices else ""
    axes = prepared.provenance["input"].get("axes")
    order = f" ({sources.describe_axes(axes)}, from axes {axes})" if axes else ""
    taken = f" A batch was taken to be {batch}{order}." if batch else ""
    if _is_out_of_memory(error):
        smaller = "lower --batch-size" if axes else "let the function of --batches make smaller batches"
        return f"{taken} The memory is too small: {smaller}, or use another --device."
    if not batch:
        return ""
    if axes is None:
        return taken + (
            choice
            or " The function of --batches must yield what the forward takes: "
            "a tuple of its positional or a dict of its keyword arguments."
        )
    return (
        f"{taken}{choice} --axes gives another order; --batches is for a forward that takes something else."
    )


def _is_out_of_memory(error: BaseException) -> bool:
    # On a CPU torch raises a plain RuntimeError.
    return isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)) is not None


@dataclass(frozen=True)
class Resampled:
    """Another resolution: `also_at` times that of a record, whose report has this name."""

    also_at: float
    record: ft.CaptureRecord
    of_report: str


def capture_record(
    prepared: Prepared,
    *,
    provenance: Mapping[str, Any] | None = None,
    plan: "ft.MeasurementPlan | None" = None,
    layers: Sequence[str] = (),
    exclude: Sequence[str] = (),
    budget: str = "full",
    doing: str = "capturing",
    quiet: bool = False,
    resampled: Resampled | None = None,
) -> ft.CaptureRecord:
    """Return the record of a capture; TelemetryError when it is empty, which would look like success.

    With `resampled` it is that of the same fields at another resolution.
    """
    run = ft.capture
    if resampled is not None:
        run = partial(ft.capture_resampled, **vars(resampled))
    with progress_bar(prepared.samples, doing, quiet) as progress, errors_in_one_line(prepared):
        record = run(
            prepared.model,
            prepared.batches,
            summary=prepared.summary,
            provenance={**prepared.provenance, **(provenance or {})},
            warnings=prepared.warnings,
            progress=progress,
            given=None if plan is not None else prepared.given,
            plan=plan,
            layers=layers,
            exclude=exclude,
            budget=budget,
            inputs=prepared.parts.inputs,
            target=prepared.parts.target or None,
            prediction=prepared.prediction,
            loss=prepared.loss,
            over_processes=True,
        )
    if not record.modules:
        reasons = "; ".join(notes(record)) or "no chosen module returned a tensor"
        raise ft.ModelError(f"nothing could be measured: {reasons}; fno-telemetry map lists the modules")
    return record


@contextlib.contextmanager
def progress_bar(total: int, doing: str, quiet: bool) -> Iterator[Callable[[int], None] | None]:
    """Show progress on stderr if it is a terminal; yield a function that takes the number of samples done."""
    console = stderr_console()
    if quiet or not console.is_terminal:
        yield None
        return
    # The description may be the name of a file.
    description = TextColumn("{task.description}", markup=False)
    columns = (description, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(doing, total=total)
        yield lambda done: progress.update(task, completed=done)
