"""`--html FILE`: the page of records, of a diagnosis or of a comparison."""

# Annotations name classes whose modules import numpy; they are not evaluated.
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import fno_telemetry as ft
from fno_telemetry_cli.options.spelling import spell_options


def check_page_file(path: Path | None) -> None:
    """Raise TelemetryError, in one line, if a page was asked for that cannot be written."""
    if path is not None:
        from fno_telemetry.page import check_page

        try:
            check_page(path)
        except ft.MissingExtra:
            raise
        except ft.ReportError as error:
            raise ft.ReportError(f"--html {error}") from error


def write_page_file(
    path: Path,
    records: Sequence[ft.CaptureRecord],
    findings: Sequence[ft.Finding] | None = None,
    comparison: ft.Comparison | None = None,
    skipped: Sequence[str] = (),
    names: Sequence[str] | None = None,
) -> str:
    """Write the page, and return a line that says where it is; records of a series are put in their order."""
    from fno_telemetry.page import write_page

    is_series = comparison is None or comparison.series is not None
    if is_series and all(record.step is not None for record in records):
        order = sorted(range(len(records)), key=lambda index: records[index].step or 0)
        records = [records[index] for index in order]
        names = None if names is None else [names[index] for index in order]
    if findings is not None:
        findings = [_spelled(finding) for finding in findings]
    write_page(path, records, findings, comparison, [spell_options(line) for line in skipped], names)
    return f"page: {path}"


def _spelled(finding: ft.Finding) -> ft.Finding:
    """Return a finding whose advice names the options of the command."""
    return replace(finding, advice=spell_options(finding.advice), confirm=spell_options(finding.confirm))
