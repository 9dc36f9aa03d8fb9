"""How the loss and the error against the target changed between two records, and whether that is worse."""

from collections.abc import Iterator

from fno_telemetry.comparison.changes import Change
from fno_telemetry.comparison.thresholds import Thresholds
from fno_telemetry.records import CaptureRecord, Value
from fno_telemetry.wording import format_number

ERROR = "relative_l2"

LEAST_ERROR = 0.01
"""A relative error below this is not worse: precision and the order of sums change it by factors."""


def accuracy_changes(
    before: CaptureRecord, after: CaptureRecord, limits: Thresholds, judged: bool
) -> tuple[Change, ...]:
    """Return the changes of the loss and of the relative L2 error, where both records know them.

    With `judged`, the error is worse if it grew by the threshold `error`. Records of a training are never
    judged by it, as each compares with the target of another batch.
    """
    return tuple(_changes(before, after, limits, judged))


def _changes(
    before: CaptureRecord, after: CaptureRecord, limits: Thresholds, judged: bool
) -> Iterator[Change]:
    one, other = _number(before.summary.get("loss")), _number(after.summary.get("loss"))
    if one is not None and other is not None and one != other:
        yield Change("loss", one, other, "note", _spell("loss", one, other))
    one, other = _error(before), _error(after)
    if one is None or other is None or one == other:
        return
    same_samples = before.input_digest == after.input_digest and not (before.stage or after.stage)
    is_worse = judged and same_samples and other >= LEAST_ERROR and other >= limits.error * one
    yield Change(
        ERROR, one, other, "warning" if is_worse else "note", _spell("relative L2 error", one, other)
    )


def _error(record: CaptureRecord) -> float | None:
    return _number(record.accuracy.stats.get(ERROR)) if record.accuracy is not None else None


def _number(value: Value) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _spell(what: str, before: float, after: float) -> str:
    return f"{what} {format_number(before)} → {format_number(after)}"
