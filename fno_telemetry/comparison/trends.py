"""Records of one run over its steps, and the trends of statistics."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fno_telemetry.keys import record_key
from fno_telemetry.quantities import by_rank, look_up
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


def series_of(records: Sequence[CaptureRecord], least_change: float) -> Series:
    """Return the series of three or more records, with the trends of a relative change >= `least_change`."""
    values: dict[str, list[Value]] = {}
    for index, record in enumerate(records):
        entries: list[ModuleRecord | BlockRecord] = [*record.modules, *record.blocks]
        for entry in entries:
            for quantity in by_rank(look_up(entry.stats, record.quantities).values()):
                if quantity.followed:
                    key = record_key(quantity.name, entry)
                    values.setdefault(key, [None] * len(records))[index] = entry.stats[quantity.name]
    trends = [trend for key, column in values.items() if (trend := _trend(key, column)) is not None]
    kept = [t for t in trends if abs(t.kendall_tau) >= _STRONG and _relative(t) >= least_change]
    steps = tuple(record.step for record in records)
    return Series(steps, records[0].summary.get("step_kind"), tuple(kept))


def sort_by_step(records: Sequence[CaptureRecord]) -> list[CaptureRecord]:
    """Return the records in order of their steps if all have one, else in the given order."""
    if any(record.step is None for record in records):
        return list(records)
    return sorted(records, key=lambda record: record.step or 0)


def _trend(key: str, column: Sequence[Value]) -> Trend | None:
    if any(value is None for value in column) or len(column) < 3:
        return None
    numbers = np.asarray(column, dtype=np.float64)
    later, earlier = np.triu_indices(len(numbers), 1)[::-1]
    change = float(np.max(np.abs(np.diff(numbers))))
    if change > _LARGEST_STEP * abs(numbers[-1] - numbers[0]):
        return None
    tau = float(np.mean(np.sign(numbers[later] - numbers[earlier])))
    return Trend(key, float(numbers[0]), float(numbers[-1]), tau)


def _relative(trend: Trend) -> float:
    largest = max(abs(trend.first), abs(trend.last))
    return abs(trend.last - trend.first) / largest if largest else 0.0
