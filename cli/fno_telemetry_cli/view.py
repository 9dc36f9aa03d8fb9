"""`fno-telemetry view`: a report as a table in the terminal, in the real TensorBoard, or where W&B has it."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

import fno_telemetry as ft
from fno_telemetry_cli import options
from fno_telemetry_cli.output import print_json, print_notes, print_results, stdout_console
from fno_telemetry_cli.reports_in import reports_in
from fno_telemetry_cli.tables import record_view
from fno_telemetry_cli.tensorboard_server import serve
from fno_telemetry_cli.wandb_view import show_wandb


def view(
    path: Annotated[Path, typer.Argument(metavar="REPORT|DIR", help="A report, or a folder with reports.")],
    tensorboard: Annotated[
        bool,
        typer.Option("--tensorboard", metavar="", help="Start TensorBoard on loopback until Ctrl-C."),
    ] = False,
    port: Annotated[
        int | None,
        typer.Option(metavar="N", help="Port for --tensorboard. Default: a free one.", min=0, max=65535),
    ] = None,
    wandb: Annotated[
        bool, typer.Option("--wandb", metavar="", help="Say how to look at the W&B runs of the capture.")
    ] = False,
    save_workspace: Annotated[
        bool,
        typer.Option(
            "--save-workspace",
            metavar="",
            help="With --wandb: save a view of the online project, a section per statistic.",
        ),
    ] = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Show a report: modules in execution order, blocks below.

    Example: fno-telemetry view out/activation_report.json
    """
    for other, is_given in (("--json", as_json), ("--wandb", wandb)):
        if is_given and tensorboard:
            raise ft.OptionError(f"give {other} or --tensorboard, not both")
    if save_workspace and not wandb:
        raise ft.OptionError("--save-workspace is for --wandb; add that, or leave it out")
    if port is not None and not tensorboard:
        raise ft.OptionError(f"--port {port} is for --tensorboard; add that, or leave it out")
    if tensorboard:
        serve(path, port or 0, quiet)
        return
    if wandb:
        show_wandb(path, save_workspace, as_json, quiet)
        return
    reports, refused = reports_in(path)
    if not quiet:
        print_notes((f"left out: {reason}" for reason in refused), style="yellow")
    if as_json:
        print_json(_document(path, list(reports)))
        return
    width = stdout_console().width
    for file, record in reports.items():
        if file != path and not quiet:
            print_results(Text(str(file), style="dim"))
        try:
            shown = record_view(record, width)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # The loader looks at the shape of a report, not at the type of every value in it.
            raise ft.ReportError(
                f"{file}: cannot be shown, its values are not a report's: {type(error).__name__}: {error}"
            ) from error
        print_results(shown)


def _document(path: Path, reports: list[Path]) -> dict[str, Any]:
    """Return the report as it is in the file, also with what this version does not know."""
    if len(reports) > 1:
        names = ", ".join(file.name for file in reports)
        raise ft.OptionError(f"--json prints one report and {path} holds {len(reports)}: name one of {names}")
    document: dict[str, Any] = json.loads(reports[0].read_text(encoding="utf-8"))
    return document
