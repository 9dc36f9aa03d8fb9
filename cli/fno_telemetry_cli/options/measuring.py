"""Options about what is measured and judged."""

import math
from dataclasses import dataclass
from typing import Annotated

import typer

import fno_telemetry as ft
from fno_telemetry_cli.options.completion import complete_words

_MEASURED = "Measured"


@dataclass(frozen=True, kw_only=True)
class MeasuringOptions:
    """What a capture measures, and whether it is diagnosed."""

    loss: Annotated[
        str | None,
        typer.Option(
            "--loss",
            metavar="NAME|PKG.MOD:FUNCTION",
            help="mse or relative_l2, which need --target, or a function (output, batch) -> scalar. Also "
            "record the gradients of this loss.",
            rich_help_panel=_MEASURED,
            autocompletion=complete_words(("mse", "relative_l2")),
        ),
    ] = None
    layers: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            help="Measure only the layers that match; * also matches dots. Repeatable. Default: by role.",
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
    budget: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="full, or light: percentiles of 65,536 elements of each larger output and batch, and "
            "spectra of an eighth of the fields. The report states the errors that this adds. Default: full.",
            show_default=False,
            rich_help_panel=_MEASURED,
            autocompletion=complete_words(("full", "light")),
        ),
    ] = "full"
    also_at: Annotated[
        float | None,
        typer.Option(
            "--also-at",
            metavar="FACTOR",
            help="Also run the same fields on a grid of FACTOR times the points along each axis, such as 2, "
            "resampled by their spectrum, into a second report. diagnose compares the layers of both.",
            rich_help_panel=_MEASURED,
        ),
    ] = None
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            metavar="",
            help="Exit with an error if a chosen layer is never called in the forward pass.",
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
            help="Diagnose the record; print the findings and add them to the report and to every sink.",
            rich_help_panel=_MEASURED,
        ),
    ] = False
    fail_on: Annotated[
        str | None,
        typer.Option(
            metavar="LEVEL",
            help="Implies --diagnose. Exit with code 1 if a finding is at least this severe: note, warning "
            "or error. Default: never, findings do not affect the exit code.",
            rich_help_panel=_MEASURED,
            autocompletion=complete_words(("note", "warning", "error", "never")),
        ),
    ] = None

    def __post_init__(self) -> None:
        factor = self.also_at
        if factor is not None and not (math.isfinite(factor) and factor > 0 and factor != 1):
            raise ft.OptionError(f"--also-at {factor:g}: expected a positive number but 1, such as 2 or 0.5")
