"""Running a user's model: how far it is, and what its forward raises as one line."""

import contextlib
from collections.abc import Callable, Iterator

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import fno_telemetry as ft
from fno_telemetry_cli.batches import first_tensor
from fno_telemetry_cli.output import stderr_console
from fno_telemetry_cli.preparing import Prepared


@contextlib.contextmanager
def errors_in_one_line(prepared: Prepared) -> Iterator[None]:
    """Turn whatever the model's forward raises into a ModelError that names it."""
    try:
        yield
    except ft.TelemetryError:
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


@contextlib.contextmanager
def progress_bar(total: int, quiet: bool) -> Iterator[Callable[[int], None] | None]:
    """Show on a terminal's stderr how many of `total` samples are done; yield what is told the number."""
    console = stderr_console()
    if quiet or not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("capturing", total=total)
        yield lambda done: progress.update(task, completed=done)
