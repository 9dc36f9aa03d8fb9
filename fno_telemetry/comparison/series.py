"""Records of one run over its steps: when it broke, and which way statistics went."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fno_telemetry.keys import record_key
from fno_telemetry.quantities import by_rank, look_up
from fno_telemetry.records import BlockRecord, CaptureRecord, ModuleRecord, Value

_STRONG = 0.9
_LARGEST_STEP = 0.8
"""Of the whole change; what happens in a single step is a break and no trend."""


@dataclass(frozen=True)
class Trend:
    """How one statistic of one layer went over the steps.

    `kendall_tau` is Kendall's tau between steps and values: 1 always up, -1 always down, 0 neither.
    """

    key: str
    first: float
    last: float
    kendall_tau: float


@dataclass(frozen=True)
class Series:
    """The steps in order, their kind, and the trends that are (nearly) monotone and not negligible."""

    steps: tuple[int | None, ...]
    step_kind: str | None
    trends: tuple[Trend, ...]


def series_of(records: Sequence[CaptureRecord], least_change: float) -> Series:
    """Return the series of three records or more, with the trends that change by `least_change` or more."""
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
    """Return the records by ascending step where all have one, else as they are."""
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
