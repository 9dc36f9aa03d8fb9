"""The report file, which every capture writes."""

import contextlib
import shlex
from pathlib import Path

from fno_telemetry import files, keys, report
from fno_telemetry.errors import ReportError
from fno_telemetry.records import CaptureRecord
from fno_telemetry.sinks.contract import NumbersByStep, RunContext
from fno_telemetry.sinks.options import check_path


class JsonFile:
    """Writes a record as strict JSON, whole or not at all; a later record replaces an earlier one.

    `JsonFile(path).write(record)` needs no `open`. Without a path the report goes into the run's folder, and
    in a series each record has a file of its own: `activation_report.step1000.json`. Nothing is on disk
    before the first record.
    """

    name = "json"

    def __init__(self, path: str | Path | None = None) -> None:
        self._given = None if path is None else check_path("path", path)
        self._path = self._given
        self._one_each = False
        self._written: list[Path] = []

    def open(self, run: RunContext) -> None:
        """Choose where the report goes; ReportError when no file can be made there."""
        path = self._given or run.folder / run.report_name
        reason = "it is a folder" if path.is_dir() else files.why_unwritable(path.parent)
        if reason:
            raise ReportError(f"{path}: cannot be written: {reason}")
        self._path, self._written = path, []
        self._one_each = run.series and self._given is None

    def write(self, record: CaptureRecord) -> None:
        """Write the report; ReportError when that fails, and then the file is as it was before."""
        if self._path is None:
            raise ReportError("this JSON sink has no path: write JsonFile(path), or open it with a run")
        path = self._path
        if self._one_each:
            path = path.with_name(report.series_report_name(path.name, record.label))
        report.write(record, path)
        self._written.append(path)

    def flush(self) -> None:
        """Do nothing: `write` returns when the report is on disk."""

    def close(self, ok: bool) -> list[str]:
        """Return the command that shows the report, or compares those of a series, once there is one."""
        written, self._written = list(dict.fromkeys(self._written)), []
        if len(written) > 1:
            start = written[0].parent / self._path.stem if self._path else written[0]
            return [f"fno-telemetry compare {shlex.quote(str(start))}.*.json"]
        return [f"fno-telemetry view {shlex.quote(str(written[0]))}"] if written else []

    def read_back(self, folder: Path) -> NumbersByStep:
        """Return the numbers of all reports in `folder`, or of the given path; other files are left out."""
        paths = sorted(folder.glob("*.json")) if self._given is None else [self._given]
        found: dict[int | None, dict[str, int | float]] = {}
        for path in paths:
            with contextlib.suppress(ReportError):
                record = report.load_report(path)
                if record.resolution is not None and len(paths) > 1:
                    continue  # the same step at another resolution
                # A validation of the same step has keys of its own.
                found.setdefault(record.step, {}).update(keys.numbers(record))
        return found
