"""The columns of pictures over steps: which records have one, their numbers, and the steps below them."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from fno_telemetry.findings import Finding
from fno_telemetry.pictures.canvas import SMALL, choose_columns, set_ticks
from fno_telemetry.pictures.rows import Row, block_rows, drawable, entries_by_place, layer_rows, marked_places
from fno_telemetry.pictures.themes import Theme
from fno_telemetry.records import CaptureRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_COLUMNS = 1000
"""Of a longer series, so many evenly spread records have a column: a screen has no more."""


def thin(records: Sequence[CaptureRecord]) -> Sequence[CaptureRecord]:
    """Return the records that have a column: all, or as many as there is room for."""
    if len(records) <= _MOST_COLUMNS:
        return records
    return [records[round(i * (len(records) - 1) / (_MOST_COLUMNS - 1))] for i in range(_MOST_COLUMNS)]


def collect_numbers(
    records: Sequence[CaptureRecord], statistic: str, findings: Iterable[Finding] | None
) -> tuple[list[Row], list[list[float | None]]]:
    """Return the rows that have this number in any of the records, with their numbers."""
    given = [*findings] if findings is not None else [f for record in records for f in record.findings or ()]
    marked = marked_places(given)
    if statistic in name_block_numbers(records):
        entries = [{block.place: block.stats for block in record.blocks} for record in records]
        rows = block_rows(records[-1], given)
    else:
        entries = [
            {place: entry.stats for place, entry in entries_by_place(record).items()} for record in records
        ]
        rows = layer_rows(records[-1], given) if records else []
    found = []
    for row in rows:
        numbers = [
            drawable(stats[row.place].get(statistic)) if row.place in stats else None for stats in entries
        ]
        if any(number is not None for number in numbers):
            found.append((Row(row.place, row.entry, row.place in marked), numbers))
    return [row for row, _ in found], [numbers for _, numbers in found]


def name_block_numbers(records: Sequence[CaptureRecord]) -> set[str]:
    """Return the numbers of blocks in the last record."""
    return {name for block in records[-1].blocks for name in block.stats} if records else set()


def name_steps(axes: "Axes", theme: Theme, records: Sequence[CaptureRecord], most: int = 9) -> None:
    """Write the steps of some columns below."""
    steps = [
        str(index + 1) if record.step is None else f"{record.step:,}" for index, record in enumerate(records)
    ]
    shown = choose_columns(steps, most)
    set_ticks(axes, [float(column) for column in shown], [steps[column] for column in shown])
    kinds = {str(record.summary.get("step_kind") or "step") for record in records if record.step is not None}
    known = [record.step for record in records if record.step is not None]
    distances = {after - before for before, after in pairwise(known)}
    uneven = ", a column for each record" if len(distances) > 1 else ""
    name = " or ".join(sorted(kinds)) or "record"
    axes.set_xlabel(f"{name}{uneven}", color=theme.muted, fontsize=SMALL)
