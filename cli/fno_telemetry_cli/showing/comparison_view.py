"""A comparison for the terminal and as JSON."""

import dataclasses
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

import fno_telemetry as ft
from fno_telemetry_cli.showing.tables import number

_MOST_ROWS = 40


def comparison_document(comparison: ft.Comparison) -> dict[str, Any]:
    """Return the comparison as JSON writes it."""
    document = dataclasses.asdict(comparison)
    return {"schema": "fno-telemetry-compare/2", "worse": comparison.worse, **document}


def comparison_view(comparison: ft.Comparison, quiet: bool) -> list[Any]:
    """Return the verdict and, unless `quiet`, its evidence in execution order."""
    lines: list[Any] = [comparison.verdict]
    if quiet:
        return lines
    lines += comparison.notes
    differing = [layer for layer in (*comparison.modules, *comparison.blocks) if layer.differs]
    if differing:
        lines.append(_table(differing[:_MOST_ROWS]))
    if len(differing) > _MOST_ROWS:
        lines.append(f"… and {len(differing) - _MOST_ROWS} more; --json has all of them")
    for what, names in (("added", comparison.added), ("removed", comparison.removed)):
        if names:
            lines.append(f"{what}: {', '.join(names)}")
    for finding in comparison.group:
        lines.append(f"{finding.runs} of {finding.of} runs: {finding.layer} {finding.statistic}")
    return lines


def _table(layers: list[ft.LayerChange]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("in execution order", overflow="fold")
    for heading in ("decades", "PSI", "spectrum"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("what changed", overflow="fold")
    styles = {"warning": "yellow", "error": "red"}
    for layer in layers:
        changes = "; ".join(change.message for change in layer.changes)
        style = styles.get(layer.severity or "", "")
        numbers = map(number, (layer.distance, layer.psi, layer.spectral_distance))
        table.add_row(escape(layer.place), *numbers, escape(changes), style=style)
    return table
