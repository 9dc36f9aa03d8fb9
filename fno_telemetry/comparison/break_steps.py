"""The step at which a series of records broke."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from fno_telemetry.comparison.learning import count_learning, is_learning
from fno_telemetry.comparison.pairs import compare_pair, is_worse
from fno_telemetry.comparison.results import Comparison
from fno_telemetry.comparison.thresholds import Thresholds
from fno_telemetry.comparison.trends import series_of, sort_by_step
from fno_telemetry.errors import ReportError
from fno_telemetry.records import CaptureRecord


def compare_series(records: Sequence[CaptureRecord], limits: Thresholds) -> Comparison:
    """Compare the records of one run: at its first break, or without a break the last with the first.

    Among records with steps, one without a step, such as that of a final file, has no place and is left out,
    as the verdict says. ReportError if the records have different kinds of steps.
    """
    placed = [record for record in records if record.step is not None]
    if 2 <= len(placed) < len(records):
        found = compare_series(placed, limits)
        left_out = len(records) - len(placed)
        named = "1 report without a step" if left_out == 1 else f"{left_out} reports without steps"
        return replace(found, verdict=f"{found.verdict}; {named} left out")
    kinds = {str(record.summary.get("step_kind")) for record in placed}
    if len(kinds) > 1:
        raise ReportError(f"a series cannot mix different kinds of steps: {', '.join(sorted(kinds))}")
    ordered = sort_by_step(records)
    whole = compare_pair(ordered[0], ordered[-1], limits)
    series = series_of(ordered, limits.share)
    broke = find_break(ordered, limits)
    if broke is not None:
        index, pair = broke
        at = ordered[index].spelled_step or f"report {index + 1}"
        verdict = f"broke at {at}: {pair.verdict.removeprefix('worse: ')}"
        return replace(
            pair,
            verdict=verdict,
            break_step=ordered[index].step,
            series=series,
            accuracy=whole.accuracy,
        )
    change = whole.verdict.removeprefix("worse: ")
    # Training may change a lot from start to end; only a break, or non-finite values, is worse.
    severity = "note" if whole.severity == "warning" else whole.severity
    if whole.severity != "error" and (whole.modules or whole.blocks):
        whole = replace(whole, verdict=f"no break over {len(ordered)} steps; from first to last, {change}")
    return replace(whole, severity=severity, series=series)


def find_break(records: Sequence[CaptureRecord], limits: Thresholds) -> tuple[int, Comparison] | None:
    """Return the index of the record that broke and its comparison with the one before; None without.

    A break is worse than the record before it and not recovered from by the end. A return to an earlier state
    of the run is a recovery, however different it is from the record before. While the run learns, only
    values that are not finite, dead or far beyond the network's scales are worse. The records are in the
    order of steps.
    """
    settled, last = count_learning(records), len(records) - 1

    @cache
    def worsens(before: int, after: int, limits: Thresholds = limits) -> bool:
        learning = is_learning(records, before, after, settled)
        return is_worse(records[before], records[after], limits, learning)

    def recovers(index: int) -> bool:
        """Whether some earlier record is no better, which is what the run returns to."""
        return any(
            not worsens(earlier, index) and (earlier >= max(settled, 1) or worsens(earlier, index - 1))
            for earlier in range(index - 1)
        )

    # What went far beyond has not recovered while it is beyond by an ordinary factor.
    lasting = replace(limits, far=min(limits.far, limits.scale))
    for index in range(1, len(records)):
        worse = worsens(index - 1, index) and worsens(index - 1, last, lasting)
        if worse and not recovers(index):
            # Where it began is told by ordinary changes, also where the run was still learning.
            return index, compare_pair(records[index - 1], records[index], limits)
    return None
