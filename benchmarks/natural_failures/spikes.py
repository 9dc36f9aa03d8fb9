"""Whether the step of a break is found, and how many steps before the loss shows it a watched run warns."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import fno_telemetry as ft
from benchmarks.natural_failures.expectations import CAUSES
from fno_telemetry.findings import group_by_cause
from fno_telemetry.watching.live_diagnosis import LiveDiagnosis

RISE = 1.5  # of the loss, over its median before
BEFORE = 10  # steps whose median loss is the one before
IN_A_ROW = 3  # steps whose median has to be that high


@dataclass(frozen=True)
class SpikeVerdict:
    """What came of a run that breaks at a known step."""

    found_at: int | None  # the step that a finding over the history says
    right: bool  # that is the first record after the accident, or the one before or after that
    rises_at: int | None  # the step at which the loss has risen by half
    warned_at: int | None  # the step of the first new warning from the accident on, in a watched run
    early: bool  # it warned before

    @property
    def lead(self) -> int | None:
        """Steps from the warning to the rise of the loss."""
        known = self.rises_at is not None and self.warned_at is not None
        return self.rises_at - self.warned_at if known else None


def judge_spike(history: Path, losses: Sequence[float], spike: int, cause: str) -> SpikeVerdict:
    """Judge the history of a run whose accident is at step `spike`."""
    records = ft.load_history(history)
    steps = [record.step for record in records if record.step is not None]
    # What the optimizer does at the spike is seen by the forward after it.
    first = next((index for index, step in enumerate(steps) if step > spike), len(steps) - 1)
    found = [
        finding.step
        for finding in ft.diagnose(*records)
        if finding.severity != "note"
        and finding.follows_from is None
        and finding.step is not None
        and CAUSES[cause].is_named_by(finding)
    ]
    found_at = found[0] if found else None
    right = found_at in steps and abs(steps.index(found_at) - first) <= 1 if found_at is not None else False
    rises_at, warned_at = find_rise(losses, spike), find_warning(records, spike)
    early = warned_at is not None and (rises_at is None or warned_at < rises_at)
    return SpikeVerdict(found_at, right, rises_at, warned_at, early)


def find_rise(losses: Sequence[float], spike: int) -> int | None:
    """Return the first step from the accident on from which the loss is 1.5 times that before, or not finite.

    One batch alone may have a larger loss: of three in a row the median counts.
    """
    before = median(losses[max(0, spike - BEFORE) : spike])
    for step in range(spike, len(losses)):
        loss, with_next = losses[step], losses[step : step + IN_A_ROW]
        if not math.isfinite(loss) or min(loss, _median(with_next)) >= RISE * before:
            return step
    return None


def _median(losses: Sequence[float]) -> float:
    return median(loss if math.isfinite(loss) else math.inf for loss in losses)


def find_warning(records: Sequence[ft.CaptureRecord], spike: int) -> int | None:
    """Return the step of a watched run's first new warning at the accident or later."""
    live, known = LiveDiagnosis(), set[tuple[str, str | None]]()
    for record in records:
        judged = live.judge(record)
        loud = {
            (cause.finding.rule, cause.finding.layer)
            for cause in group_by_cause(judged.findings or ())
            if cause.finding.severity != "note"
        }
        if record.step is not None and record.step >= spike and loud - known:
            return record.step
        known |= loud
    return None
