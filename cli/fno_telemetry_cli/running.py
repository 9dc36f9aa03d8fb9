"""Running a user's model: the record it gives, how far it is, what its forward raises as one line."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import fno_telemetry as ft
from fno_telemetry_cli.batches import first_tensor
from fno_telemetry_cli.output import stderr_console
from fno_telemetry_cli.preparing import Prepared
from fno_telemetry_cli.tables import notes


@contextlib.contextmanager
def errors_in_one_line(prepared: Prepared) -> Iterator[None]:
    """Turn whatever the model's forward raises into a ModelError that names it."""
    try:
        yield
    except ft.TelemetryError as error:
        # Of what options name, only a loss is looked at while a model runs.
        if isinstance(error, ft.OptionError) and prepared.loss is not None:
            raise ft.OptionError(f"--loss {prepared.provenance['loss']}: {error}") from error
        raise
    except (Exception, SystemExit) as error:  # a user's forward may raise anything
        text = str(error).strip().splitlines()
        detail = f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
        first = first_tensor(prepared.batches)
        given = "" if first is None else f" It was given {tuple(first.shape)} {first.dtype}."
        raise ft.ModelError(
            f"The forward of {type(prepared.model).__name__} failed with {detail}.{given} "
            "Check --axes, --set and --batch-size."
        ) from error


def captured(
    prepared: Prepared,
    *,
    provenance: Mapping[str, Any] | None = None,
    layers: Sequence[str] = (),
    exclude: Sequence[str] = (),
    doing: str = "capturing",
    quiet: bool = False,
) -> ft.CaptureRecord:
    """Return what a capture found; TelemetryError when that is nothing, since all would seem to be well."""
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
        reasons = "; ".join(notes(record)) or "no module that was chosen returned a tensor"
        raise ft.ModelError(f"nothing could be measured: {reasons}; fno-telemetry map shows what there is")
    return record


@contextlib.contextmanager
def progress_bar(total: int, doing: str, quiet: bool) -> Iterator[Callable[[int], None] | None]:
    """Show on a terminal's stderr how many of `total` samples are done; yield what is told the number."""
    console = stderr_console()
    if quiet or not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(doing, total=total)
        yield lambda done: progress.update(task, completed=done)
