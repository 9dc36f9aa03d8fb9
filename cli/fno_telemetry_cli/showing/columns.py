"""Tables for the terminal: columns beside each other, of which some give way where it is narrow."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from fno_telemetry_cli.showing.bars import bar
from fno_telemetry_cli.showing.terminal import Screen

_BAR_CELLS = (6, 4, 1)  # the widths of a bar next to a share; the widest one that fits is taken
_NAMES_FOLD = 2  # names are folded before a column that gives way this late, or later, is dropped
_FOLDED_NAME = 20  # columns of the terminal that a folded name keeps while there is anything to drop
_GAP = 2  # columns of the terminal between columns of a table


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    heading: str
    cells: Sequence[Text]
    is_number: bool = False
    gives_way: int = 0  # the highest goes first; 0 stays
    shares: Sequence[float | None] = ()  # the numbers of its cells from 0 to 1, which terminals get as bars
    should_be_low: bool = False  # whether a large share is a fault

    @property
    def width(self) -> int:
        """The width of its widest line."""
        return max(
            Text(line).cell_len for line in (*self.heading.split("\n"), *(c.plain for c in self.cells))
        )


def fit(columns: list[Column], screen: Screen) -> Iterator[RenderableType]:
    """Yield a table of the columns that fit side by side, then a line that names the others.

    In a terminal, shares get bars where there is still room.
    """
    chosen = _choose(columns, screen.width)
    shown = _with_bars(chosen, screen)
    names, *others = shown
    room = max(1, screen.width - _width(others))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
    for column in shown:
        justify = "right" if column.is_number else "left"
        # Only names may be broken; what is left of a broken number would be another number.
        table.add_column(
            column.heading,
            justify=justify,  # type: ignore[arg-type]
            vertical="bottom",
            no_wrap=column is not names,
            overflow="fold",
        )
    for name, *cells in zip(*(column.cells for column in shown), strict=True):
        table.add_row(folded(name, room), *cells)
    yield table
    if len(chosen) < len(columns):
        left_out = [" ".join(column.heading.split()) for column in columns if column not in chosen]
        yield Text(f"no room at this width for: {', '.join(left_out)}", style="dim")


def _width(columns: Sequence[Column]) -> int:
    return sum(column.width + _GAP for column in columns)


def _with_bars(columns: list[Column], screen: Screen) -> list[Column]:
    """Return the columns, those of shares with bars as wide as there is room for."""
    drawn = [column for column in columns if any(column.shares)] if screen.is_terminal else []
    room = screen.width - _width(columns[1:]) - columns[0].width
    cells = next((cells for cells in _BAR_CELLS if drawn and (cells + 1) * len(drawn) <= room), 0)
    if not cells:
        return columns
    return [_add_bars(column, cells, screen) if column in drawn else column for column in columns]


def _add_bars(column: Column, cells: int, screen: Screen) -> Column:
    widest = max(cell.cell_len for cell in column.cells)
    found = []
    for cell, share in zip(column.cells, column.shares, strict=True):
        number = Text(" " * (widest - cell.cell_len)).append_text(cell)
        drawn = bar(share, cells, screen, should_be_low=column.should_be_low)
        found.append(Text.assemble(number, " ", drawn))
    return replace(column, cells=found)


def folded(name: Text, width: int) -> Text:
    """Return a name with line breaks in front of dots, where it is too long for the width."""
    lines = [""]
    for part in re.split(r"(?=\.)", name.plain):
        if lines[-1] and Text(lines[-1] + part).cell_len > width:
            lines.append("")
        lines[-1] += part
    return Text("\n".join(lines), style=name.style)


def _choose(columns: list[Column], width: int) -> list[Column]:
    """Return the columns to show; those that give way earliest are dropped, of equal ones the last.

    Names, the first column, are folded before what a reader misses more than a line of its own.
    """
    names, *others = columns
    while others:
        # Of equal columns `max` takes the first.
        least = max(reversed(others), key=lambda column: column.gives_way)
        room = width - sum(column.width + _GAP for column in others)
        folds = least.gives_way <= _NAMES_FOLD
        if room >= (min(names.width, _FOLDED_NAME) if folds else names.width) or not least.gives_way:
            break
        others = [column for column in others if column is not least]
    return [names, *others]
