"""The rows of a picture by depth: the input, the layers in order, the output; and how their names fit."""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fno_telemetry import keys
from fno_telemetry.findings import Finding, group_by_cause
from fno_telemetry.records import (
    BlockRecord,
    CaptureRecord,
    ModuleRecord,
    ParameterRecord,
    TensorRecord,
    Value,
    spell_place,
)
from fno_telemetry.wording import to_printable

MOST_OF_ALL = 40
"""Of a network with more modules, the layers with a role have rows, not every module."""

MOST_ROWS = 160
"""Of more, so many evenly spread ones have rows."""

LONGEST_NAME = 28
"""Columns of a name; a letter of Chinese takes two."""

LARGEST = 1e150
"""What is larger than this, or smaller than its inverse, is on no scale."""

_SHOWN_OF_END = 2 / 3  # the end of a path tells more than its beginning


@dataclass(frozen=True)
class Row:
    """One row; `is_marked` where an error or a warning was found there."""

    place: str
    entry: TensorRecord | BlockRecord
    is_marked: bool = False

    @property
    def name(self) -> str:
        """The place in words, printable."""
        return to_printable(spell_place(self.place))

    @property
    def stats(self) -> Mapping[str, Value]:
        """The numbers of the entry."""
        return self.entry.stats

    def number(self, statistic: str) -> float | None:
        """Return a number that can be drawn; None where it is undefined."""
        return drawable(self.stats.get(statistic))


def drawable(value: Value) -> float | None:
    """Return a number that can be drawn; None for what is undefined, or so large that a scale overflows."""
    if value is None or not keys.is_defined(value) or abs(value) > LARGEST:
        return None
    return float(value) if abs(value) >= 1 / LARGEST else 0.0


def layer_rows(record: CaptureRecord, findings: Iterable[Finding] | None = None) -> list[Row]:
    """Return a row for the input, for each layer and for the first output.

    Of a network with more than MOST_OF_ALL modules, the layers are those with a role, and those where an
    error or a warning has its cause.
    """
    found = tuple((record.findings if findings is None else findings) or ())
    marked = marked_places(found)
    shown = keys.modules_in_order(record)
    if len(shown) > MOST_OF_ALL:
        causes = marked_places(cause.finding for cause in group_by_cause(found))
        places = causes | {module.place for module in keys.layers_in_order(record)}
        shown = [module for module in shown if module.place in places]
    named: list[tuple[str, TensorRecord | None]] = [("input", record.input)]
    named += [(module.place, module) for module in shown]
    # The last layer often is the output; it has a row of its own because findings name it.
    named += [("output", record.output)]
    rows = [Row(place, entry, place in marked) for place, entry in named if entry is not None]
    return spread(rows, MOST_ROWS)


def block_rows(record: CaptureRecord, findings: Iterable[Finding] | None = None) -> list[Row]:
    """Return a row for each block."""
    marked = marked_places(record.findings if findings is None else findings)
    return spread([Row(block.place, block, block.place in marked) for block in record.blocks], MOST_ROWS)


def marked_places(findings: Iterable[Finding] | None) -> set[str | None]:
    """Return the places of errors and warnings."""
    return {finding.layer for finding in findings or () if finding.severity != "note"}


def entries_by_place(record: CaptureRecord) -> dict[str, TensorRecord | BlockRecord | ParameterRecord]:
    """Return what a record holds by the places of `layer_rows`."""
    found: dict[str, TensorRecord | BlockRecord | ParameterRecord] = {}
    found |= {module.place: module for module in record.modules}
    for side in ("input", "output"):
        if (entry := getattr(record, side)) is not None:
            found[side] = entry
    return found


def spread(rows: Sequence[Row], most: int) -> list[Row]:
    """Return at most so many rows, evenly spread, the first, the last and all marked ones among them."""
    if len(rows) <= most:
        return list(rows)
    wanted = {round(index * (len(rows) - 1) / (most - 1)) for index in range(most)}
    return [row for index, row in enumerate(rows) if index in wanted or row.is_marked]


def shorten(name: str, longest: int = LONGEST_NAME) -> str:
    """Return a name that takes at most so many columns, shortened in its middle."""
    if columns_of(name) <= longest:
        return name
    tail = _take(reversed(name), round((longest - 1) * _SHOWN_OF_END))[::-1]
    return f"{_take(name, longest - 1 - columns_of(tail))}…{tail}"


def columns_of(text: str) -> int:
    """Return how many columns of a terminal a text takes, about what it takes in a picture."""
    return sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text)


def _take(letters: Iterable[str], columns: int) -> str:
    taken = ""
    for letter in letters:
        if columns_of(taken + letter) > columns:
            break
        taken += letter
    return taken


def is_module(entry: TensorRecord | BlockRecord, role: str) -> bool:
    """Whether this is a module of a role."""
    return isinstance(entry, ModuleRecord) and entry.role == role
