"""The reports that a path names."""

import re
from collections.abc import Iterable
from pathlib import Path

import fno_telemetry as ft


def reports_in(path: Path) -> tuple[dict[Path, ft.CaptureRecord], list[str]]:
    """Return the report at `path`, or those in that folder, and why other JSON files in it are not reports.

    ReportError when there is none.
    """
    if not path.is_dir():
        return {path: ft.load_report(path)}, []
    found: dict[Path, ft.CaptureRecord] = {}
    refused: list[ft.ReportError] = []
    for file in sorted(path.glob("*.json"), key=_by_numbers):
        try:
            found[file] = ft.load_report(file)
        except ft.ReportError as error:
            refused.append(error)
    if not found:
        raise (
            refused[0]
            if refused
            else ft.ReportError(
                f"{path}: no report in this folder; `fno-telemetry capture --output {path}` writes one"
            )
        )
    return found, [str(error) for error in refused]


def reports_in_all(paths: Iterable[Path]) -> tuple[dict[Path, ft.CaptureRecord], list[str]]:
    """Return the reports at all these paths, and a line for each file that is left out."""
    found: dict[Path, ft.CaptureRecord] = {}
    notes: list[str] = []
    for path in paths:
        reports, refused = reports_in(path)
        found |= reports
        notes += [f"left out: {reason}" for reason in refused]
    return found, notes


def _by_numbers(file: Path) -> list[tuple[int, str]]:
    """Sort names as people do: step9 before step10."""
    parts = re.split(r"(\d+)", file.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
