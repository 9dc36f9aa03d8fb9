"""The reports that a path stands for."""

import re
from pathlib import Path

import fno_telemetry as ft


def reports_in(path: Path) -> tuple[dict[Path, ft.CaptureRecord], list[str]]:
    """Return the report that `path` is, or those in the folder that it is, and why other JSON files are not.

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


def _by_numbers(file: Path) -> list[tuple[int, str]]:
    """Sort names as people do: step9 before step10."""
    parts = re.split(r"(\d+)", file.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
