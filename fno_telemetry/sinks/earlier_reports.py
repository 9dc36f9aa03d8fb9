"""The reports in a run's folder, for sinks that have to show a run in the order of its steps."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fno_telemetry import keys, report
from fno_telemetry.errors import ReportError
from fno_telemetry.records import CaptureRecord
from fno_telemetry.sinks.contract import RunContext

Version = tuple[int, int, int]
"""What distinguishes a file from the one that replaces it: inode, size, time of the change in ns."""

REPLACED: Version = (0, 0, 0)

Point = tuple[int, bool]
"""A step, and whether it is a validation, whose curves are others; in the order in which they are written."""


@dataclass(frozen=True)
class ReportOnDisk:
    """A report of the run, and which of those that were written to its path."""

    path: Path
    version: Version


def point_of(record: CaptureRecord) -> Point:
    """Return the point at which a record is drawn; one without a step is at step 0."""
    return record.step or 0, record.stage == keys.VALIDATION


class EarlierReports:
    """Yields the other reports of `experiment` in `folder`, each once and by ascending step.

    The folder is read when the first record comes, because a report that this record has replaced is not an
    earlier one. Steps and epochs are never mixed: reports that count in another unit are left out.
    """

    def __init__(self, run: RunContext, experiment: str) -> None:
        self._run, self._experiment = run, experiment
        self._began = time.time_ns()
        self._kind: object = None
        self._waiting: dict[Point, ReportOnDisk] | None = None
        self._known: dict[ReportOnDisk, tuple[Point, str] | None] = {}
        self._left_out: dict[str, None] = {}

    @property
    def left_out(self) -> list[str]:
        """Why reports in the folder were left out, a line for each."""
        return list(self._left_out)

    def before(self, record: CaptureRecord) -> Iterator[tuple[CaptureRecord, ReportOnDisk]]:
        """Yield the reports of smaller steps; one of the same step is replaced by the record."""
        point = point_of(record)
        if self._waiting is None:
            self._kind = record.summary.get("step_kind")
            self._waiting = self.by_point()
        self._waiting.pop(point, None)
        smaller = {earlier: found for earlier, found in self._waiting.items() if earlier < point}
        for earlier in smaller:
            del self._waiting[earlier]
        yield from self.read(smaller)

    def rest(self) -> Iterator[tuple[CaptureRecord, ReportOnDisk]]:
        """Yield the reports that were not yielded yet."""
        waiting, self._waiting = self._waiting or {}, {}
        yield from self.read(waiting)

    def read(self, reports: dict[Point, ReportOnDisk]) -> Iterator[tuple[CaptureRecord, ReportOnDisk]]:
        """Yield these reports by ascending step; one that cannot be read is left out."""
        for point, found in sorted(reports.items(), key=lambda item: item[0]):
            try:
                record = report.load_report(found.path)
            except ReportError as error:
                self._left_out[str(error)] = None
                continue
            # Another capture may have replaced it since the folder was read.
            if point_of(record) == point:
                yield record, found

    def find(self, record: CaptureRecord) -> ReportOnDisk | None:
        """Return the report that this record was just written to; None if no sink has written one.

        If another capture has replaced it since, its version is REPLACED, which no report has.
        """
        name = self._run.report_name
        if self._run.series:
            name = report.series_report_name(name, record.label)
        found = _on_disk(self._run.folder / name)
        if found is None:
            return None
        try:
            document = report.read_document(found.path)
        except ReportError:
            return None
        if _holds(document, record):
            return found
        return ReportOnDisk(found.path, REPLACED) if found.version[-1] >= self._began else None

    def by_point(self) -> dict[Point, ReportOnDisk]:
        """Return the newest report of each point; a checkpoint without a step belongs to no curve."""
        newest: dict[Point, tuple[str, ReportOnDisk]] = {}
        for path in sorted(self._run.folder.glob("*.json")):
            found = _on_disk(path)
            if found is None:
                continue
            if found not in self._known:
                self._known[found] = self._point_and_time(path)
            if (place := self._known[found]) is not None:
                point, made = place
                if point not in newest or newest[point][0] <= made:
                    newest[point] = (made, found)
        return {point: found for point, (_, found) in newest.items()}

    def _point_and_time(self, path: Path) -> tuple[Point, str] | None:
        """Return the point of a report and when it was made; None if it does not belong to the run."""
        try:
            document = report.read_document(path)
        except ReportError as error:
            self._left_out[str(error)] = None
            return None
        summary, provenance = document.get("summary"), document.get("provenance")
        if not isinstance(summary, dict) or not isinstance(provenance, dict):
            return None
        # One of the same fields at another resolution is no point of a curve.
        if provenance.get("experiment") != self._experiment or document.get("resolution") is not None:
            return None
        step, kind = summary.get("checkpoint_step"), summary.get("step_kind")
        if not isinstance(step, int):
            if provenance.get("checkpoint"):
                return None
            step, kind = 0, self._kind
        self._kind = self._kind or kind
        if kind != self._kind:
            self._left_out[f"{path} counts in {kind}s and this run in {self._kind}s"] = None
            return None
        training = document.get("training")
        stage = training.get("stage") if isinstance(training, dict) else None
        return (step, stage == keys.VALIDATION), str(provenance.get("time"))


def _holds(document: Mapping[str, Any], record: CaptureRecord) -> bool:
    """Whether the document was made of the record, as its time and the numbers in `layers` tell."""
    provenance, layers = document.get("provenance"), document.get("layers")
    if not isinstance(provenance, dict) or provenance.get("time") != record.provenance.get("time"):
        return False
    own = {
        name: [v if keys.is_defined(v) else None for v in values] for name, values in record.layers.items()
    }
    return bool(layers == own)


def _on_disk(path: Path) -> ReportOnDisk | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return ReportOnDisk(path, (status.st_ino, status.st_size, status.st_mtime_ns))
