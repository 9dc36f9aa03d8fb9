"""Options about how reports are judged: compared and diagnosed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fno_telemetry_cli.options.completion import complete_names


@dataclass(frozen=True, kw_only=True)
class ComparisonOptions:
    """How reports are compared."""

    group: Annotated[
        bool,
        typer.Option(
            "--group",
            metavar="",
            help="Take the first as a baseline and the others as runs of one experiment (seeds).",
        ),
    ] = False
    allow_different_input: Annotated[
        bool,
        typer.Option("--allow-different-input", metavar="", help="Compare captures of different samples."),
    ] = False
    thresholds: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML file whose table compare sets the limits."),
    ] = None
    fail_on: Annotated[
        str,
        typer.Option(
            metavar="LEVEL",
            help="Lowest severity that makes the exit code 1: note, warning (worse), error or never.",
        ),
    ] = "warning"


@dataclass(frozen=True, kw_only=True)
class DiagnosisOptions:
    """How reports are diagnosed."""

    baseline: Annotated[
        Path | None,
        typer.Option(metavar="REPORT", help="Report of the same network from before it broke."),
    ] = None
    thresholds: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML file whose tables diagnose.RULE set the limits."),
    ] = None
    rule: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE",
            help="Apply only this rule. Repeatable.",
            autocompletion=complete_names("rules"),
        ),
    ] = None
    explain: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="Print a rule's formula, its limits and where they come from; then stop.",
            autocompletion=complete_names("rules"),
        ),
    ] = None
    fail_on: Annotated[
        str,
        typer.Option(
            metavar="LEVEL",
            help="Lowest severity that makes the exit code 1: note, warning, error or never.",
        ),
    ] = "warning"
