"""What `view` shows of a record: tables of all its layers, or as much of them as fits on a screen."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rich.console import Group, RenderableType
from rich.text import Text

import fno_telemetry as ft
from fno_telemetry.findings import describe_diagnosis, group_by_cause, select_new
from fno_telemetry.keys import ROLES, VALIDATION
from fno_telemetry.wording import format_number
from fno_telemetry_cli.showing.channel_lines import channel_lines
from fno_telemetry_cli.showing.chosen_layers import Layers, list_layers
from fno_telemetry_cli.showing.columns import fit
from fno_telemetry_cli.showing.depth_overview import depth_overview
from fno_telemetry_cli.showing.layer_tables import (
    AROUND,
    band_columns,
    block_columns,
    module_columns,
    overview_columns,
)
from fno_telemetry_cli.showing.tables import accuracy_line, format_count, headline, notes, shown, some
from fno_telemetry_cli.showing.terminal import Screen, stdout_console

_NOTES_SHOWN = 3  # below tables that must fit on a screen
_FEWEST_LINES = 10  # of a screen that tables are fitted to


@dataclass(frozen=True)
class View:
    """What is printed of a record, and how many of its modules that shows, of how many."""

    content: RenderableType
    shown: int
    modules: int


def record_view(record: ft.CaptureRecord, screen: Screen) -> RenderableType:
    """Return headline, accuracy, the tables of all layers, and notes."""
    tables = _tables(record, list_layers(record), screen)
    return Group(
        *_head(record), *_bands(record, screen), *tables, *_below([*_remarks(record), *_found(record)])
    )


def chosen_view(record: ft.CaptureRecord, layers: Layers, screen: Screen) -> RenderableType:
    """Return the headline and the tables of these layers."""
    return Group(headline(record), *_tables(record, layers, screen))


def one_screen(record: ft.CaptureRecord, screen: Screen, spare: int) -> View:
    """Return as much of a record as fits on the screen with `spare` lines left.

    That is all of it; or the layers with a role; or blocks with what is before and after them; else each
    number by depth. Where there is no terminal, everything fits.
    """
    every = list_layers(record)
    if screen.height is None:
        return View(record_view(record, screen), len(every.modules), len(every.modules))
    room = max(screen.height, _FEWEST_LINES) - spare
    remarks, found = list(_remarks(record)), list(_found(record))
    short = _below(_shorten([*found, *remarks]))
    for tables, listed in _fitting(record, every, screen, room):
        is_all = listed == len(every.modules)
        content = Group(*_head(record), *tables, *(_below([*remarks, *found]) if is_all else short))
        if _count_lines(content, screen.width) <= room:
            return View(content, listed, len(every.modules))
    parts = [*_head(record), Text()], short
    left = room - sum(_count_lines(Group(*part), screen.width) for part in parts)
    overview = depth_overview(record, every, screen, left)
    return View(Group(*parts[0], *overview, *parts[1]), 0, len(every.modules))


def _fitting(
    record: ft.CaptureRecord, every: Layers, screen: Screen, room: int
) -> Iterator[tuple[list[RenderableType], int]]:
    """Yield tables, each with fewer rows than the one before, and how many modules they list."""
    if len(every.modules) + len(every.blocks) <= room:
        yield [*_bands(record, screen), *_tables(record, every, screen)], len(every.modules)
    with_role = replace(every, modules=[module for module in every.modules if module.role in ROLES])
    if with_role.modules and len(with_role.modules) + len(with_role.blocks) <= room:
        yield [*_tables(record, with_role, screen)], len(with_role.modules)
    around = replace(every, modules=[module for module in every.modules if module.role in AROUND])
    if around.modules and max(len(around.modules), len(around.blocks)) <= room:
        yield [Text(), *fit(overview_columns(record, around), screen)], len(around.modules)


def _shorten(notes: Sequence[Text]) -> list[Text]:
    """Return the first notes, and how many more there are."""
    if (more := len(notes) - _NOTES_SHOWN) < 2:
        return [*notes]
    return [*notes[:_NOTES_SHOWN], Text(f"and {more} more lines: --all", style="dim")]


def _count_lines(content: RenderableType, width: int) -> int:
    console = stdout_console()
    return len(console.render_lines(content, console.options.update(width=width), pad=False))


def _head(record: ft.CaptureRecord) -> Iterator[RenderableType]:
    yield headline(record)
    yield from _training(record)
    yield from accuracy_line(record)
    yield from map(shown, channel_lines(record))


def _bands(record: ft.CaptureRecord, screen: Screen) -> Iterator[RenderableType]:
    if record.accuracy is not None and record.accuracy.bands is not None:
        yield Text()
        yield from fit(band_columns(record.accuracy.bands), screen)


def _tables(record: ft.CaptureRecord, layers: Layers, screen: Screen) -> Iterator[RenderableType]:
    if layers.is_empty:
        yield Text("no layer of this record is chosen", style="dim")
    if layers.before or layers.modules or layers.after:
        yield Text()
        yield from fit(module_columns(record, layers), screen)
    if layers.blocks:
        yield Text()
        yield from fit(block_columns(record, layers), screen)


def _below(lines: Sequence[Text]) -> list[Text]:
    return [Text(), *lines] if lines else []


def _remarks(record: ft.CaptureRecord) -> Iterator[Text]:
    """Yield what a reader should know before trusting the numbers, a line each."""
    yield from (shown(line, "yellow") for line in (*_unmoved(record), *notes(record)))


def _found(record: ft.CaptureRecord) -> Iterator[Text]:
    """Yield what was found in the record, a line each."""
    if record.findings is not None:
        yield Text(f"diagnosed: {describe_diagnosis(record)}", style="bold")
        for cause in group_by_cause(select_new(record)):
            if cause.finding.severity != "note":
                yield shown(str(cause.finding))


def _training(record: ft.CaptureRecord) -> Iterator[Text]:
    """Yield a line of what only a training knows of its step."""
    training = record.training
    if not training:
        return
    rates = training.get("learning_rates") or ()
    parts = [f"learning rate {', '.join(map(format_number, rates))}"] if rates else []
    if (forwards := training.get("forwards")) is not None:
        parts.append(format_count(forwards, "forward"))
    if dropped := training.get("dropped"):
        parts.append(f"{format_count(dropped, 'record')} before it dropped")
    yield shown(f"{'validation' if record.stage == VALIDATION else 'training'}: {', '.join(parts)}")


def _unmoved(record: ft.CaptureRecord) -> Iterator[str]:
    """Yield a line that names parameters which the training has not moved, where it has moved others."""
    unmoved = [parameter.name for parameter in record.parameters if parameter.stats.get("moved") == 0]
    if unmoved and any(parameter.stats.get("moved") for parameter in record.parameters):
        yield f"not moved since the first record: {some(unmoved)}"
