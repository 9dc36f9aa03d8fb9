"""`fno-telemetry compare`: what changed between reports, where first, since when, and is it worse."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

import fno_telemetry as ft
from fno_telemetry_cli import options
from fno_telemetry_cli.output import print_json, print_notes, print_results
from fno_telemetry_cli.reports_in import reports_in

EXIT_WORSE = 1
_LEVELS = ("note", "warning", "error", "never")
_MOST_ROWS = 40


def compare(
    paths: Annotated[
        list[Path], typer.Argument(metavar="REPORT|DIR…", help="Two or more reports, or folders of reports.")
    ],
    group: Annotated[
        bool,
        typer.Option(
            "--group", metavar="", help="The first is a baseline, the others runs of one experiment (seeds)."
        ),
    ] = False,
    allow_different_input: Annotated[
        bool,
        typer.Option("--allow-different-input", metavar="", help="Compare captures of different samples."),
    ] = False,
    thresholds: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML file with limits under [compare].")
    ] = None,
    fail_on: Annotated[
        str,
        typer.Option(metavar="LEVEL", help="Exit 1 from here on: note, warning (worse), error or never."),
    ] = "warning",
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Say what changed per layer and block, where first, since which step, and whether it is worse.

    Two reports are compared with each other; more are a series over their steps.

    Example: fno-telemetry compare before/activation_report.json after/activation_report.json
    """
    if fail_on not in _LEVELS:
        raise ft.OptionError(f"--fail-on {fail_on!r}: expected {', '.join(_LEVELS)}")
    limits = ft.read_thresholds(thresholds) if thresholds else None
    records: list[ft.CaptureRecord] = []
    for path in paths:
        found, refused = reports_in(path)
        records += found.values()
        if not quiet:
            print_notes([f"left out: {reason}" for reason in refused])
    if len(records) < 2:
        raise ft.ReportError(
            f"{', '.join(map(str, paths))}: {len(records)} report; compare needs at least two"
        )
    found_changes = ft.compare(
        *records, thresholds=limits, allow_different_input=allow_different_input, group=group
    )
    if as_json:
        print_json(_document(found_changes))
    else:
        print_results(*_view(found_changes, quiet))
    if found_changes.severity is not None and _LEVELS.index(found_changes.severity) >= _LEVELS.index(fail_on):
        raise typer.Exit(EXIT_WORSE)


def _document(comparison: ft.Comparison) -> dict[str, Any]:
    document = dataclasses.asdict(comparison)
    return {"schema": "fno-telemetry-compare/1", "worse": comparison.worse, **document}


def _view(comparison: ft.Comparison, quiet: bool) -> list[Any]:
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
        numbers = [
            "–" if value is None else f"{value:.3f}"
            for value in (layer.distance, layer.stability, layer.spectral_distance)
        ]
        table.add_row(escape(layer.place), *numbers, escape(changes), style=style)
    return table
