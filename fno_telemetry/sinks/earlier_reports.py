"""The earlier reports in a run's folder, for sinks that have to show a run in the order of its steps."""

from collections.abc import Iterator
from pathlib import Path

from fno_telemetry import report
from fno_telemetry.errors import ReportError
from fno_telemetry.records import CaptureRecord


class EarlierReports:
    """Yields the other reports of `experiment` in `folder`, each once and by ascending step.

    The folder is read when the first record comes, because a report that this record has replaced is not an
    earlier one. Steps and epochs are never mixed: reports that count in another unit are left out.
    """

    def __init__(self, folder: Path, experiment: str) -> None:
        self._folder, self._experiment = folder, experiment
        self._kind: object = None
        self._paths: dict[int, Path] | None = None
        self.left_out: list[str] = []

    def before(self, record: CaptureRecord) -> Iterator[CaptureRecord]:
        """Yield the reports of smaller steps; one of the same step is replaced by the record."""
        step = record.step or 0
        if self._paths is None:
            self._kind = record.summary.get("step_kind")
            self._paths = self._found()
        self._paths.pop(step, None)
        yield from self._taken([earlier for earlier in self._paths if earlier < step])

    def rest(self) -> Iterator[CaptureRecord]:
        """Yield the reports that were not yielded yet."""
        yield from self._taken(list(self._paths or ()))

    def _taken(self, steps: list[int]) -> Iterator[CaptureRecord]:
        for step in sorted(steps):
            path = (self._paths or {}).pop(step)
            try:
                record = report.load_report(path)
            except ReportError as error:
                self.left_out.append(str(error))
                continue
            # Another capture may have replaced it since the folder was read.
            if (record.step or 0) == step:
                yield record

    def _found(self) -> dict[int, Path]:
        """Return the newest report of each step; a checkpoint without a step belongs to no curve."""
        found: dict[int, tuple[str, Path]] = {}
        for path in sorted(self._folder.glob("*.json")):
            try:
                document = report.read_document(path)
            except ReportError as error:
                self.left_out.append(str(error))
                continue
            summary, provenance = document.get("summary"), document.get("provenance")
            if not isinstance(summary, dict) or not isinstance(provenance, dict):
                continue
            if provenance.get("experiment") != self._experiment:
                continue
            step, kind = summary.get("checkpoint_step"), summary.get("step_kind")
            if not isinstance(step, int):
                if provenance.get("checkpoint"):
                    continue
                step = 0
                kind = self._kind
            self._kind = self._kind or kind
            if kind != self._kind:
                self.left_out.append(f"{path} counts in {kind}s and this run in {self._kind}s")
                continue
            time = str(provenance.get("time"))
            found[step] = max(found.get(step, ("", path)), (time, path))
        return {step: path for step, (_, path) in found.items()}
