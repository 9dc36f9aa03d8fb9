"""What the shell completes besides the names of options."""

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path

import typer

import fno_telemetry as ft
from fno_telemetry import plugins, report
from fno_telemetry.quantities import QUANTITIES

SORT_KEYS = ("order", "role", "name")
"""What rows can be sorted by besides numbers."""

_HISTORY = "history.jsonl"
_MOST_BYTES = 64 * 2**20  # of a file that is read between two keys


def complete_names(kind: str) -> Callable[[str], list[str]]:
    """Return what completes the names of this kind of plug-in, also at the end of a comma list."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [before + comma + name for name in plugins.names(kind) if name.startswith(last)]

    return complete


def complete_words(words: Iterable[str]) -> Callable[[str], list[str]]:
    """Return what completes one of a few words."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return complete


def complete_layers(context: typer.Context, incomplete: str) -> list[str]:
    """Complete the names of the layers and blocks in the report that was typed before."""
    record = _read(context)
    if record is None:
        return []
    ends = ["input", "output", *(["target"] if record.target is not None else [])]
    places = [*ends, *(module.place for module in record.modules), *(block.place for block in record.blocks)]
    return [place for place in dict.fromkeys(places) if place.startswith(incomplete)]


def complete_sort_keys(context: typer.Context, incomplete: str) -> list[str]:
    """Complete what rows can be sorted by: the numbers of the report that was typed before, or all."""
    record = _read(context)
    numbers: Iterable[str] = QUANTITIES
    if record is not None:
        entries: list[ft.ModuleRecord | ft.BlockRecord] = [*record.modules, *record.blocks]
        there = {name for entry in entries for name in entry.stats}
        numbers = [*(name for name in QUANTITIES if name in there), *sorted(there - QUANTITIES.keys())]
    return [key for key in (*SORT_KEYS, *numbers) if key.startswith(incomplete)]


def _read(context: typer.Context) -> ft.CaptureRecord | None:
    """Return the report, the last report of the folder, or the last record of the history that was typed.

    None where there is none that can be read: no message helps between two keys.
    """
    # Where the option to complete comes last, the parser ends before it looks at what is no option.
    typed = context.params.get("path") or next((word for word in context.args if word[:1] != "-"), None)
    if typed is None:
        return None
    path = Path(typed)
    with contextlib.suppress(ft.TelemetryError, OSError):
        if path.is_dir():
            reports = [*path.glob("*.json"), *path.glob(_HISTORY)]
            path = max(reports, key=lambda file: file.stat().st_mtime, default=path)
        if path.stat().st_size <= _MOST_BYTES:
            return report.list_history(path)[-1].load() if report.is_history(path) else ft.load_report(path)
    return None
