"""Runs a user's model: the record, a progress bar, and what its forward raises as one line."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import fno_telemetry as ft
from fno_telemetry import sources
from fno_telemetry_cli.capturing.preparing import Prepared
from fno_telemetry_cli.showing.tables import notes
from fno_telemetry_cli.showing.terminal import stderr_console


@contextlib.contextmanager
def errors_in_one_line(prepared: Prepared) -> Iterator[None]:
    """Turn whatever the model's forward raises into a ModelError that names it."""
    try:
        yield
    except ft.TelemetryError as error:
        # While a model runs, only a loss can be wrong of all that options name.
        if isinstance(error, ft.OptionError) and prepared.loss is not None:
            raise ft.OptionError(f"--loss {prepared.provenance['loss']}: {error}") from error
        raise
    except (Exception, SystemExit) as error:  # a user's forward may raise anything
        text = str(error).strip().splitlines()
        detail = f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
        first = sources.first_tensor(prepared.batches)
        given = "" if first is None else f" It was given {tuple(first.shape)} {first.dtype}."
        raise ft.ModelError(
            f"The forward of {type(prepared.model).__name__} failed with {detail}.{given} "
            "Check --axes, --set and --batch-size."
        ) from error


def capture_record(
    prepared: Prepared,
    *,
    provenance: Mapping[str, Any] | None = None,
    layers: Sequence[str] = (),
    exclude: Sequence[str] = (),
    doing: str = "capturing",
    quiet: bool = False,
) -> ft.CaptureRecord:
    """Return the record of a capture; TelemetryError when it is empty, which would look like success."""
    with progress_bar(prepared.samples, doing, quiet) as progress, errors_in_one_line(prepared):
        record = ft.capture(
            prepared.model,
            prepared.batches,
            summary=prepared.summary,
            provenance={**prepared.provenance, **(provenance or {})},
            warnings=prepared.warnings,
            progress=progress,
            given=prepared.given,
            layers=layers,
            exclude=exclude,
            loss=prepared.loss,
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
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(doing, total=total)
        yield lambda done: progress.update(task, completed=done)
