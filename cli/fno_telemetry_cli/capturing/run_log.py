"""A log of the run, kept in memory and written whole, next to the report."""

import datetime
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import fno_telemetry as ft
from fno_telemetry import files, report
from fno_telemetry.wording import to_one_line
from fno_telemetry_cli.showing.tables import headline, notes


class RunLog:
    """Lines, each with the time at which it was noted."""

    def __init__(self, command: str) -> None:
        self._lines: list[str] = []
        self.note(f"fno-telemetry {ft.__version__}: {command}")

    def note(self, text: str) -> None:
        """Add a line."""
        time = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        self._lines.append(f"{time} {to_one_line(text)}")

    def note_captures(
        self, records: Iterable[ft.CaptureRecord], failures: Iterable[object], sinks: Mapping[str, str]
    ) -> None:
        """Note what was captured, what was not, and the status of each sink."""
        for record in records:
            self._note_capture(record)
        for failure in failures:
            self.note(f"not captured: {failure}")
        self.note(f"sinks: {json.dumps(sinks)}")

    def _note_capture(self, record: ft.CaptureRecord) -> None:
        """Note what was captured, how long that took, and the record's notes."""
        provenance = report.as_document(record)["provenance"]
        self.note(headline(record).plain)
        self.note(f"{len(record.modules)} modules, {len(record.blocks)} blocks")
        for key in ("versions", "input", "checkpoint", "arguments", "overhead"):
            if key in provenance:
                self.note(f"{key}: {json.dumps(provenance[key])}")
        for line in notes(record):
            self.note(line)

    def write(self, path: Path) -> None:
        """Write all lines to `path`, whole or not at all."""
        with files.whole_file(path) as part:
            # File names that are not UTF-8 arrive as lone surrogates, which UTF-8 cannot hold.
            text = "\n".join(self._lines) + "\n"
            part.write_text(text, encoding="utf-8", errors="backslashreplace")
