"""Options about how reports are judged: compared and diagnosed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fno_telemetry_cli.options.completion import complete_names, complete_words

_LEVELS = ("note", "warning", "error", "never")


@dataclass(frozen=True, kw_only=True)
class ComparisonOptions:
    """How reports are compared."""

    group: Annotated[
        bool,
        typer.Option(
            "--group",
            metavar="",
            help="Compare each report with the first, the baseline. For runs of one experiment, such as "
            "several seeds.",
        ),
    ] = False
    show_all: Annotated[
        bool,
        typer.Option(
            "--all",
            metavar="",
            help="List every layer that changed. Default: those that matter most, each tensor once.",
        ),
    ] = False
    allow_different_input: Annotated[
        bool,
        typer.Option(
            "--allow-different-input",
            metavar="",
            help="Allow reports that were captured on different samples.",
        ),
    ] = False
    thresholds: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML file with thresholds, in a table \\[compare]."),
    ] = None
    fail_on: Annotated[
        str,
        typer.Option(
            metavar="LEVEL",
            help="Exit with code 1 if a change is at least this severe: note, warning (worse) or error. "
            "never: changes do not affect the exit code. Default: warning.",
            show_default=False,
            autocompletion=complete_words(_LEVELS),
        ),
    ] = "warning"


@dataclass(frozen=True, kw_only=True)
class DiagnosisOptions:
    """How reports are diagnosed."""

    baseline: Annotated[
        Path | None,
        typer.Option(metavar="REPORT", help="Earlier, healthy report of the same network."),
    ] = None
    test: Annotated[
        Path | None,
        typer.Option(
            metavar="REPORT",
            help="Report of the same weights on samples that the network was not trained on.",
        ),
    ] = None
    thresholds: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML file with thresholds, in tables \\[diagnose.RULE]."),
    ] = None
    rule: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE",
            help="Apply only this rule. Repeatable. Default: all rules.",
            autocompletion=complete_names("rules"),
        ),
    ] = None
    show_all: Annotated[
        bool,
        typer.Option(
            "--all",
            metavar="",
            help="Print all findings, and what to give for the rules that were not applied. Default: the "
            "five worst causes, and notes only where there is nothing worse.",
        ),
    ] = False
    explain: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="Print a rule's formula, its thresholds and where they come from, then exit.",
            autocompletion=complete_names("rules"),
        ),
    ] = None
    fail_on: Annotated[
        str,
        typer.Option(
            metavar="LEVEL",
            help="Exit with code 1 if a finding is at least this severe: note, warning or error. "
            "never: findings do not affect the exit code. Default: warning.",
            show_default=False,
            autocompletion=complete_words(_LEVELS),
        ),
    ] = "warning"
