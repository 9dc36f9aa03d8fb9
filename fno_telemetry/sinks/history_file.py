"""The history of a run: a file of one record a line, to which every step of a training is appended."""

import shlex
from pathlib import Path

from fno_telemetry import files, keys, report
from fno_telemetry.errors import OptionError, ReportError
from fno_telemetry.records import CaptureRecord
from fno_telemetry.sinks.contract import NumbersByStep, RunContext
from fno_telemetry.sinks.options import check_path

_NAME = "history.jsonl"
_MIB = 2**20


class HistoryFile:
    """Appends each record as one line of strict JSON, which `ft.load_history` reads.

    `HistoryFile(path).write(record)` needs no `open`. Without a path the history is `history.jsonl` in the
    run's folder. Nothing that was written is changed: a step that is written again, as after a restart from
    an earlier checkpoint, is there twice, and the later line counts. What a killed process left of a line is
    cut off before the next one. With `rotate_mib`, a file that would get larger is followed by another:
    `history.jsonl`, `history.1.jsonl`, … Nothing is on disk before the first record.

    A line has what a report has, with 7 significant digits and without `layers`.
    """

    name = "history"

    def __init__(self, path: str | Path | None = None, *, rotate_mib: float | None = None) -> None:
        if rotate_mib is not None and (
            isinstance(rotate_mib, bool) or not isinstance(rotate_mib, int | float) or not rotate_mib > 0
        ):
            raise OptionError(f"`rotate_mib` {rotate_mib!r}: a number of MiB above 0 was expected")
        self._given = None if path is None else check_path("path", path)
        self._path = self._given
        self._most_bytes = None if rotate_mib is None else int(min(rotate_mib * _MIB, 2.0**62))
        self._written = 0

    def open(self, run: RunContext) -> None:
        """Choose where the history is; ReportError when no file can be made there."""
        path = self._given or run.folder / _NAME
        reason = "it is a folder" if path.is_dir() else files.why_unwritable(path.parent)
        if reason:
            raise ReportError(f"{path}: cannot be written: {reason}")
        self._path, self._written = path, 0

    def write(self, record: CaptureRecord) -> None:
        """Append the record; ReportError when that fails, and then the history is as it was before."""
        if self._path is None:
            raise ReportError("this history has no path: write HistoryFile(path), or open it with a run")
        report.append_to_history(record, self._path, self._most_bytes)
        self._written += 1

    def flush(self) -> None:
        """Do nothing: `write` returns when the system has the line."""

    def close(self, ok: bool) -> list[str]:
        """Return the command that shows the last record, or looks for faults in several."""
        written, self._written = self._written, 0
        if not written:
            return []
        command = "view" if written == 1 else "diagnose"
        return [f"fno-telemetry {command} {shlex.quote(str(self._path))}"]

    def read_back(self, folder: Path) -> NumbersByStep:
        """Return the numbers of the history in `folder`, or at the given path; {} if there is none."""
        try:
            entries = report.list_history(self._given or folder / _NAME)
        except ReportError:
            return {}
        found: dict[int | None, dict[str, int | float]] = {}
        for entry in entries:
            # A validation of the same step has keys of its own.
            found.setdefault(entry.step, {}).update(keys.numbers(entry.load()))
        return found
