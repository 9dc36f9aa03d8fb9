"""The result of a capture for the terminal and as JSON."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.text import Text

import fno_telemetry as ft
from fno_telemetry.report import as_document
from fno_telemetry.sinks import Outcome
from fno_telemetry_cli.failures import Failure
from fno_telemetry_cli.options.output import PrintingOptions
from fno_telemetry_cli.showing.findings_view import findings_document, findings_view
from fno_telemetry_cli.showing.tables import accuracy_line, format_count, headline, notes, number
from fno_telemetry_cli.showing.terminal import print_error, print_json, print_notes, print_results


@dataclass(frozen=True)
class CapturedReports:
    """The reports of a capture, the status of its sinks, what failed, and what a reader should know."""

    reports: Mapping[Path, ft.CaptureRecord]
    outcome: Outcome
    failures: tuple[Failure, ...]
    findings: Sequence[ft.Finding] | None
    notes: tuple[str, ...]
    problems: tuple[str, ...]
    schema: str = "fno-telemetry-capture/1"
    resampled: Mapping[str, ft.CaptureRecord] = field(default_factory=dict)  # at another resolution, by path

    @property
    def failed_sinks(self) -> dict[str, str]:
        """The sinks that failed, with the reasons."""
        return {name: reason for name, reason in self.outcome.status.items() if reason != "ok"}

    @property
    def failed_in_part(self) -> bool:
        """Whether a checkpoint or a sink failed."""
        return bool(self.failures or self.failed_sinks)

    def document(self) -> dict[str, Any]:
        """Return what JSON writes."""
        diagnosed = {} if self.findings is None else {"findings": findings_document(self.findings)}
        return {
            "schema": self.schema,
            "reports": [
                {"path": str(path), "step": record.step, "summary": as_document(record)["summary"]}
                for path, record in [*self.reports.items(), *self.resampled.items()]
            ],
            "sinks": self.outcome.status,
            "errors": [{"checkpoint": str(f.path), "error": f.reason} for f in self.failures],
        } | diagnosed


def show_captured_reports(captured: CapturedReports, printing: PrintingOptions) -> None:
    """Print what failed, then the results, then what a reader should know."""
    for failure in captured.failures:
        print_error(f"not captured: {failure}")
    for name, reason in captured.failed_sinks.items():
        print_error(f"the {name} sink failed, the report is written: {reason}")
    if printing.as_json:
        print_json(captured.document())
    else:
        lines = () if printing.quiet else (*_lines(captured.reports), *_resampled_lines(captured.resampled))
        diagnosed = captured.findings is not None
        print_results(*lines, *findings_view(captured.findings or (), printing.quiet) if diagnosed else ())
    if printing.quiet:
        return
    own = _notes_of_all([*captured.reports.values(), *captured.resampled.values()])
    print_notes((*captured.notes, *own, *captured.problems), style="yellow")
    if captured.outcome.lines and not printing.as_json:
        print_notes(["look at it:", *(f"  {line}" for line in captured.outcome.lines)])


def _lines(reports: Mapping[Path, ft.CaptureRecord]) -> Iterator[Text | str]:
    """Yield what was captured, and where each report is."""
    for path, record in reports.items():
        modules = format_count(len(record.modules), "module")
        blocks = format_count(len(record.blocks), "block")
        yield headline(record)
        yield from accuracy_line(record)
        yield f"{path}: {modules}, {blocks}"


def _resampled_lines(resampled: Mapping[str, ft.CaptureRecord]) -> Iterator[str]:
    """Yield what was captured at another resolution, and how the output differs there."""
    for path, record in resampled.items():
        found = record.resolution
        if found is None:
            continue
        points = " x ".join(map(str, found.sizes))
        difference = None if record.output is None else record.output.stats.get("resolution_difference")
        differs = "" if difference is None else f"; the output differs by {number(difference)}"
        yield f"{path}: the same fields on {points} points{differs}"


def _notes_of_all(records: Sequence[ft.CaptureRecord]) -> Iterator[str]:
    """Yield the notes of all records; what holds for every checkpoint only once."""
    found: dict[str, list[str]] = {}
    for record in records:
        path = record.facts_about("checkpoint").get("path")
        for line in notes(record):
            found.setdefault(line.replace(path, "every checkpoint") if path else line, []).append(line)
    for line, lines in found.items():
        yield from [line] if 1 < len(records) == len(lines) else dict.fromkeys(lines)
