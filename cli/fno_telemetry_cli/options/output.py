"""Options about where results go: files, sinks, the terminal."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fno_telemetry_cli.options.completion import complete_names, complete_words

OUTPUT, _WANDB = "Output", "W&B"

SinkOptionTexts = Annotated[
    list[str] | None,
    typer.Option(
        "--sink-option",
        metavar="NAME.KEY=VALUE",
        help="Option of a chosen sink, as in tensorboard.layout=false; VALUE is a TOML literal. Repeatable.",
        rich_help_panel=OUTPUT,
    ),
]

DetailText = Annotated[
    str | None,
    typer.Option(
        "--detail",
        metavar="LEVEL",
        help="How much goes to dashboards. overview: the layers with a role, and of each at most 12 numbers. "
        "full: every number. The report always has every number. Default: overview.",
        rich_help_panel=OUTPUT,
        autocompletion=complete_words(("overview", "full")),
    ),
]


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Where reports and dashboards go."""

    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the report; created if missing. Required.",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    sink: Annotated[
        list[str] | None,
        typer.Option(
            "--sink",
            metavar="NAMES",
            help="json, history, tensorboard, wandb, or a sink from a plug-in. Separate several by commas, "
            "or repeat the option. JSON is always written.",
            rich_help_panel=OUTPUT,
            autocompletion=complete_names("sinks"),
        ),
    ] = None
    detail: DetailText = None
    sink_option: SinkOptionTexts = None
    output_json_name: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="File name of the report. Default: activation_report.json.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = "activation_report.json"
    experiment: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of the run in dashboards. Default: the name of the output folder.",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    force: Annotated[
        bool,
        typer.Option("--force", metavar="", help="Replace an existing report.", rich_help_panel=OUTPUT),
    ] = False


@dataclass(frozen=True, kw_only=True)
class OutputOptions(ReportOptions):
    """Where a capture's report and dashboards go."""

    redact: Annotated[
        bool,
        typer.Option(
            "--redact",
            metavar="",
            help="Keep file paths and the command out of the report; write no log.",
            rich_help_panel=OUTPUT,
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class DashboardOptions:
    """Which dashboards get records that were captured before."""

    sink: Annotated[
        list[str] | None,
        typer.Option(
            "--sink",
            metavar="NAMES",
            help="Also write the compared reports into dashboards: tensorboard, wandb, … "
            "Separate several by commas, or repeat the option.",
            rich_help_panel=OUTPUT,
            autocompletion=complete_names("sinks"),
        ),
    ] = None
    detail: DetailText = None
    sink_option: SinkOptionTexts = None
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder for the dashboards; --sink requires it.", rich_help_panel=OUTPUT
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class WandbOptions:
    """What was typed for W&B; None where nothing was."""

    project: Annotated[
        str | None,
        typer.Option(
            "--wandb-project",
            metavar="NAME",
            help="W&B project. Default: fno-telemetry.",
            rich_help_panel=_WANDB,
        ),
    ] = None
    entity: Annotated[
        str | None,
        typer.Option(
            "--wandb-entity",
            metavar="NAME",
            help="W&B user or team. Default: your own.",
            rich_help_panel=_WANDB,
        ),
    ] = None
    mode: Annotated[
        str | None,
        typer.Option(
            "--wandb-mode",
            metavar="MODE",
            help="online, offline or disabled. Default: online if there are credentials, else offline.",
            rich_help_panel=_WANDB,
            autocompletion=complete_words(("online", "offline", "disabled")),
        ),
    ] = None
    layout: Annotated[
        str | None,
        typer.Option(
            "--wandb-layout",
            metavar="LAYOUT",
            help="experiment: one W&B run, with a row for each checkpoint. per-checkpoint: one for "
            "each checkpoint. Default: experiment.",
            rich_help_panel=_WANDB,
            autocompletion=complete_words(("experiment", "per-checkpoint")),
        ),
    ] = None

    @property
    def typed(self) -> dict[str, object]:
        """The options that were typed, by their names without `--wandb-`."""
        return {name: value for name, value in vars(self).items() if value not in (None, False)}


@dataclass(frozen=True, kw_only=True)
class WandbCaptureOptions(WandbOptions):
    """`WandbOptions` and those that only a capture has."""

    alert: Annotated[
        bool,
        typer.Option(
            "--wandb-alert",
            metavar="",
            help="With --diagnose: send an alert for every record with an error or a warning.",
            rich_help_panel=_WANDB,
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class PageOptions:
    """The page that is written besides."""

    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write a page with pictures and tables: one HTML file that loads nothing. Needs the "
            "extra html.",
            rich_help_panel=OUTPUT,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class PrintingOptions:
    """What every command has."""

    as_json: Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON document.")] = False
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", "-q", metavar="", help="Print only results and errors: no progress, no hints."
        ),
    ] = False
