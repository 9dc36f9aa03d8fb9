"""A network too deep for a table on one screen: each number by depth, with its lowest and highest value."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

import fno_telemetry as ft
from fno_telemetry.quantities import Quantity, columns
from fno_telemetry.wording import to_printable
from fno_telemetry_cli.showing.bars import PLAIN, profile
from fno_telemetry_cli.showing.chosen_layers import Layers
from fno_telemetry_cli.showing.tables import format_count, number
from fno_telemetry_cli.showing.terminal import Screen

_MOST_CELLS, _FEWEST_CELLS = 48, 8  # of a profile
_GAP = 2
_LINES_AROUND = 2  # the headings and the line below

Entry = ft.ModuleRecord | ft.BlockRecord
End = tuple[str, str]
"""A number, and the layer that has it."""


@dataclass(frozen=True)
class _Row:
    name: str
    along: Sequence[float | None]
    top: float  # of the profile
    lowest: End
    highest: End


def depth_overview(
    record: ft.CaptureRecord, layers: Layers, screen: Screen, lines: int
) -> Iterator[RenderableType]:
    """Yield a table with a line for each number: a profile over depth, and where it is lowest and highest.

    Of more numbers than fit on so many `lines`, the first ones.

    The profile of a number of modules is that of the outputs of blocks or, without any, of the spectral
    layers, else of all; the lowest and the highest value are those of all layers.
    """
    what, along = _choose_along(layers.modules)
    found = [*_rows(record, layers.modules, along), *_rows(record, layers.blocks, layers.blocks)]
    if not found:
        return
    rows = found[: max(lines - _LINES_AROUND, 1)]
    ends = [[row.lowest for row in rows], [row.highest for row in rows]]
    numbers = [max(len(value) for value, _ in column) for column in ends]
    places = max(len(place) for column in ends for _, place in column)
    left = screen.width - max(len(row.name) for row in rows) - sum(numbers) - 3 * _GAP - len(numbers)
    most = min(_MOST_CELLS, max(len(row.along) for row in rows))
    cells = max(_FEWEST_CELLS, min(most, max(left // 3, left - 2 * places)))
    room = max(1, (left - cells) // 2)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    for heading in ("", "by depth", "lowest, in", "highest, in"):
        table.add_column(heading, no_wrap=True)
    for row in rows:
        cells_of_ends = [
            f"{value.rjust(longest)} {_cut_start(place, room)}"
            for (value, place), longest in zip((row.lowest, row.highest), numbers, strict=True)
        ]
        table.add_row(row.name, Text(profile(row.along, row.top, cells, screen), PLAIN), *cells_of_ends)
    yield table
    more = f"; {len(found) - len(rows)} more numbers: --all" if len(rows) < len(found) else ""
    what_is_drawn = f"by depth: {format_count(len(along), what)}; shares from 0 to 1, others from 0{more}"
    yield Text(what_is_drawn, "dim", no_wrap=True, overflow="ellipsis")


def _choose_along(modules: Sequence[ft.ModuleRecord]) -> tuple[str, Sequence[ft.ModuleRecord]]:
    for role, what in (("block", "block"), ("spectral", "spectral layer")):
        if found := [module for module in modules if module.role == role]:
            return what, found
    return "layer", modules


def _rows(record: ft.CaptureRecord, entries: Sequence[Entry], along: Sequence[Entry]) -> Iterator[_Row]:
    for quantity in columns([entry.stats for entry in entries], record.quantities):
        if not quantity.in_overview:
            continue
        known = [
            (value, entry.place) for entry in entries if (value := entry.stats.get(quantity.name)) is not None
        ]
        if known:
            values = [entry.stats.get(quantity.name) for entry in along]
            top = 1.0 if quantity.keeps_one else max((value for value in values if value), default=0.0)
            yield _Row(
                " ".join(quantity.column.split()),
                values,
                top,
                _end(quantity, known, min),
                _end(quantity, known, max),
            )


def _end(
    quantity: Quantity, known: Sequence[tuple[float, str]], choose: Callable[..., tuple[float, str]]
) -> End:
    value, place = choose(known, key=lambda each: each[0])
    if len(known) > 1 and all(other == value for other, _ in known):
        place = "everywhere"
    return number(value, quantity.keeps_one), to_printable(place)


def _cut_start(place: str, longest: int) -> str:
    """Return a place cut to this length; the end of a path tells more than its beginning."""
    return place if len(place) <= longest else f"…{place[len(place) - longest + 1 :]}"
