"""Records of one run over its steps, and the trends of statistics."""

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from fno_telemetry.keys import at, record_place
from fno_telemetry.quantities import Quantity, by_rank, look_up
from fno_telemetry.records import BlockRecord, CaptureRecord, ModuleRecord, Value

_STRONG = 0.9
_LARGEST_STEP = 0.8
"""The largest share of the whole change in a single step; more is a break, not a trend."""


@dataclass(frozen=True)
class Trend:
    """The change of one statistic of one layer over the steps.

    `kendall_tau` is Kendall's tau [1] between steps and values: 1 if it always rises, -1 if it always falls.

    [1] Kendall: A New Measure of Rank Correlation, 1938.
    """

    key: str
    first: float
    last: float
    kendall_tau: float


@dataclass(frozen=True)
class Series:
    """The steps in order, their kind, and the trends that are nearly monotone and large enough."""

    steps: tuple[int | None, ...]
    step_kind: str | None
    trends: tuple[Trend, ...]


Columns = Mapping[str, Sequence[Value]]
"""Key of a statistic of a layer -> its value in each record, None where it is undefined or not there."""


def series_of(records: Sequence[CaptureRecord], least_change: float) -> Series:
    """Return the series of three or more records, with the trends of a relative change >= `least_change`."""
    steps = tuple(record.step for record in records)
    trends = find_trends(collect_columns(records), least_change)
    return Series(steps, records[0].summary.get("step_kind"), tuple(trends))


def collect_columns(records: Sequence[CaptureRecord]) -> Columns:
    """Return the values of every statistic that trends follow, over the records."""
    columns: dict[tuple[str, str], list[Value]] = {}
    followed: dict[tuple[tuple[str, ...], tuple[Quantity, ...]], list[str]] = {}
    places: dict[tuple[str, int, str | None], str] = {}
    for index, record in enumerate(records):
        entries: list[ModuleRecord | BlockRecord] = [*record.modules, *record.blocks]
        for entry in entries:
            # Most entries have the same statistics as others, and all their places are in every record.
            kind = (tuple(entry.stats), record.quantities)
            if kind not in followed:
                followed[kind] = _select_followed(*kind)
            where = (entry.name, entry.call, entry.item if isinstance(entry, ModuleRecord) else None)
            if where not in places:
                places[where] = record_place(entry)
            for name in followed[kind]:
                column = columns.get((name, places[where]))
                if column is None:
                    column = columns[name, places[where]] = [None] * len(records)
                column[index] = entry.stats.get(name)
    return {at(*key): column for key, column in columns.items()}


def find_trends(columns: Columns, least_change: float, start: int = 0) -> list[Trend]:
    """Return what is nearly monotone from the record at `start` on, with a relative change >= `least_change`.

    None of fewer than three records.
    """
    trends = (_trend(key, column[start:], least_change) for key, column in columns.items())
    return [trend for trend in trends if trend is not None]


def _select_followed(names: Sequence[str], stored: Sequence[Quantity]) -> list[str]:
    return [quantity.name for quantity in by_rank(look_up(names, stored).values()) if quantity.followed]


def sort_by_step(records: Sequence[CaptureRecord]) -> list[CaptureRecord]:
    """Return the records in order of their steps if all have one, else in the given order."""
    if any(record.step is None for record in records):
        return list(records)
    return sorted(records, key=lambda record: record.step or 0)


def _trend(key: str, column: Sequence[Value], least_change: float) -> Trend | None:
    """Return the trend of a statistic; None where a value is undefined, or where it is none."""
    numbers = [float(value) for value in column if value is not None]
    if len(numbers) < max(len(column), 3) or not all(map(math.isfinite, numbers)):
        return None
    first, last = numbers[0], numbers[-1]
    largest = max(abs(first), abs(last))
    if not largest or abs(last - first) / largest < least_change:
        return None
    if max(abs(after - before) for before, after in pairwise(numbers)) > _LARGEST_STEP * abs(last - first):
        return None
    tau = _kendall_tau(numbers)
    return Trend(key, first, last, tau) if abs(tau) >= _STRONG else None


def _kendall_tau(numbers: Sequence[float]) -> float:
    """Return the share of pairs in which the later number is larger, minus that in which it is smaller."""
    balance = 0
    earlier: list[float] = []
    for number in numbers:
        smaller, larger = bisect_left(earlier, number), len(earlier) - bisect_right(earlier, number)
        balance += smaller - larger
        insort(earlier, number)
    return balance / math.comb(len(numbers), 2)
