"""Options about what is measured and judged."""

from dataclasses import dataclass
from typing import Annotated

import typer

_MEASURED = "Measured"


@dataclass(frozen=True, kw_only=True)
class MeasuringOptions:
    """What a capture measures, and whether it is diagnosed."""

    loss: Annotated[
        str | None,
        typer.Option(
            "--loss",
            metavar="PKG.MOD:FUNCTION",
            help="Function (output, batch) -> scalar; its gradients are captured too.",
            rich_help_panel=_MEASURED,
        ),
    ] = None
    layers: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            help="Measure only the layers that match; * also matches dots. Repeatable.",
            rich_help_panel=_MEASURED,
        ),
    ] = None
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            help="Do not measure the layers that match. Repeatable.",
            rich_help_panel=_MEASURED,
        ),
    ] = None
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            metavar="",
            help="Stop with an error when a chosen layer does not fire.",
            rich_help_panel=_MEASURED,
        ),
    ] = False
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            metavar="",
            help="Print what would be captured and how much memory that takes; write nothing.",
            rich_help_panel=_MEASURED,
        ),
    ] = False
    diagnose: Annotated[
        bool,
        typer.Option(
            "--diagnose",
            metavar="",
            help="Find what is wrong; print it and add it to the report and to every sink.",
            rich_help_panel=_MEASURED,
        ),
    ] = False
    fail_on: Annotated[
        str | None,
        typer.Option(
            metavar="LEVEL",
            help="Diagnose. Lowest severity that makes the exit code 1: note, warning, error or never.",
            rich_help_panel=_MEASURED,
        ),
    ] = None
