"""Writes records into one W&B run, whoever owns it."""

import re
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fno_telemetry import report
from fno_telemetry.records import CaptureRecord
from fno_telemetry.sinks import wandb_rows
from fno_telemetry.sinks.wandb_rows import DEPTH, HISTOGRAMS, STEP

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run

ARTIFACT_TYPE = "activation-report"

ARTIFACT_FILE = "activation_report.json"

MOST_REPORTS = 100
"""Older reports are not kept as artifacts, so that a long training does not fill the disk."""


class Feed:
    """One run: its metrics are defined as they appear, its reports kept in the run's folder until the end.

    An artifact tells the server where its file was. When a run is `redacted`, reports become plain files of
    the run instead, which tell nothing but their content.
    """

    def __init__(self, run: "Run", redacted: bool = False, most_reports: int = MOST_REPORTS) -> None:
        self.run = run
        self.redacted = redacted
        self.left_out: tuple[str, ...] = ()
        self._defined: set[str] = set()
        self._reports: deque[tuple[Path, CaptureRecord]] = deque()
        self._most_reports = most_reports
        self._kept = 0

    def write_row(self, record: CaptureRecord, commit: bool = True) -> None:
        """Write the record as one row; without `commit` it joins the row that comes next, or is open."""
        import wandb

        made = wandb_rows.row(record)
        self.left_out = made.left_out
        self._define([*made.scalars, *made.histograms], STEP if record.step is not None else None)
        values: dict[str, Any] = dict(made.scalars)
        for key, bins in made.histograms.items():
            counts_and_edges: Any = bins  # lists serve as well as the arrays that are declared
            values[key] = wandb.Histogram(np_histogram=counts_and_edges)
        # No step=: one smaller than the run's own would drop the row.
        self.run.log(values, commit=commit)

    def write_depth(self, record: CaptureRecord) -> None:
        """Write the depth profile, one row per module."""
        self.run.define_metric(f"{DEPTH}/*", step_metric=DEPTH, summary="none")
        for name in (DEPTH, "layer"):
            self.run.define_metric(name, summary="none")
        for values in wandb_rows.depth_rows(record):
            self.run.log(values)

    def keep_report(self, record: CaptureRecord) -> None:
        """Keep the report for `log_reports`; the file stays, because `wandb sync` uploads it from there."""
        folder = Path(self.run.dir).absolute().parent / "fno-telemetry"
        path = folder / f"activation_report.{self._kept}.json"
        report.write(record, path)
        self._kept += 1
        self._reports.append((path, record))
        if len(self._reports) > self._most_reports:
            self._reports.popleft()[0].unlink(missing_ok=True)

    def log_reports(self) -> None:
        """Make each report kept a version of the run's artifact; online this waits for the server."""
        import wandb

        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{ARTIFACT_TYPE}-{self.run.id}")
        while self._reports:
            path, record = self._reports.popleft()
            if self.redacted:
                self.run.save(path, base_path=path.parent, policy="now", glob=False)
                continue
            artifact = wandb.Artifact(name, ARTIFACT_TYPE, metadata={STEP: record.step})
            # From where it is: otherwise a copy goes to the user's home.
            artifact.add_file(str(path), ARTIFACT_FILE, policy="immutable", skip_cache=True)
            self.run.log_artifact(artifact, aliases=["latest", *_alias(record)])

    def wait_until_taken(self) -> None:
        """Return when W&B's own process has everything that was written."""
        # It answers in order, so what was sent before the question has arrived.
        _ = self.run.step

    def _define(self, names: Iterable[str], step_metric: str | None) -> None:
        """Define what is new: one glob per statistic, which do not overlap, and each plain name."""
        globs = {f"{name.partition('/')[0]}/*" if "/" in name else name for name in names}
        for glob in sorted(globs - self._defined - {STEP}):
            self._defined.add(glob)
            statistic = glob.removesuffix("/*")
            if "*" in statistic:
                continue  # W&B takes an asterisk at the end only; the curve then is over its own step
            summary = "none" if statistic in HISTOGRAMS else None
            if summary or step_metric:
                self.run.define_metric(glob, step_metric=step_metric, summary=summary)


def _alias(record: CaptureRecord) -> list[str]:
    return [] if record.step is None else [f"{record.summary.get('step_kind') or 'step'}-{record.step}"]
