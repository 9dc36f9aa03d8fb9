"""The report file: the sink that every capture has."""

import shlex
from pathlib import Path

from fno_telemetry import report
from fno_telemetry.errors import ReportError
from fno_telemetry.records import CaptureRecord
from fno_telemetry.sinks.contract import RunContext


class JsonFile:
    """Writes a record as strict JSON, whole or not at all; a later record replaces an earlier one.

    `JsonFile(path).write(record)` needs no `open`. Without a path the run says where the report goes.
    Nothing is on disk before the first record.
    """

    name = "json"

    def __init__(self, path: str | Path | None = None) -> None:
        self._given = None if path is None else Path(path)
        self._path = self._given
        self._written = False

    def open(self, run: RunContext) -> None:
        """Settle where the report goes; ReportError when no file can be made there."""
        path = self._given or run.folder / run.report_name
        reason = "it is a folder" if path.is_dir() else report.why_unwritable(path.parent)
        if reason:
            raise ReportError(f"{path}: cannot be written: {reason}")
        self._path, self._written = path, False

    def write(self, record: CaptureRecord) -> None:
        """Write the report; ReportError when that fails, and then the file is as it was before."""
        if self._path is None:
            raise ReportError("this JSON sink has no path: write JsonFile(path), or open it with a run")
        report.write(record, self._path)
        self._written = True

    def flush(self) -> None:
        """Do nothing: what `write` returned from is on disk."""

    def close(self, ok: bool) -> list[str]:
        """Return the command that shows the report, once there is one."""
        written, self._written = self._written, False
        return [f"fno-telemetry view {shlex.quote(str(self._path))}"] if written else []
