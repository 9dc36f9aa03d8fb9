"""`fno-telemetry view`: a report as a table in the terminal, in the real TensorBoard, or in W&B."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

import fno_telemetry as ft
from fno_telemetry import report
from fno_telemetry_cli.options.output import PageOptions, PrintingOptions
from fno_telemetry_cli.options.reading import ReadingOptions
from fno_telemetry_cli.options.signature import with_options
from fno_telemetry_cli.reports_in import (
    find_history,
    record_at,
    refuse_two_runs,
    reports_below,
    reports_in,
)
from fno_telemetry_cli.showing.page_file import check_page_file, write_page_file
from fno_telemetry_cli.showing.tables import headline, record_view, shown
from fno_telemetry_cli.showing.terminal import print_json, print_notes, print_results, stdout_console


@dataclass(frozen=True, kw_only=True)
class ViewRequest:
    """What `view` was asked for."""

    path: Annotated[
        Path,
        typer.Argument(metavar="REPORT|DIR|HISTORY", help="A report, a folder with reports, or a history."),
    ]
    step: Annotated[
        int | None,
        typer.Option(
            "--step", metavar="N", help="Of a history, show the record of this step, not the last.", min=0
        ),
    ] = None
    tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard", metavar="", help="Start TensorBoard on this machine; it runs until Ctrl-C."
        ),
    ] = False
    port: Annotated[
        int | None,
        typer.Option(metavar="N", help="Port for --tensorboard. Default: a free one.", min=0, max=65535),
    ] = None
    wandb: Annotated[
        bool, typer.Option("--wandb", metavar="", help="Print how to open the W&B runs of the capture.")
    ] = False
    save_workspace: Annotated[
        bool,
        typer.Option(
            "--save-workspace",
            metavar="",
            help="With --wandb: save a W&B workspace with one section per statistic, in the online project.",
        ),
    ] = False
    reading: ReadingOptions
    page: PageOptions
    printing: PrintingOptions

    def __post_init__(self) -> None:
        if self.step is not None and (self.tensorboard or self.wandb):
            raise ft.OptionError(f"--step {self.step} is for tables; leave out --tensorboard and --wandb")
        if self.step is not None and find_history(self.path) is None:
            raise ft.OptionError(f"--step {self.step} is for a history, and {self.path} is none")
        for other, is_given in (("--json", self.printing.as_json), ("--wandb", self.wandb)):
            if is_given and self.tensorboard:
                raise ft.OptionError(f"give {other} or --tensorboard, not both")
        if self.reading.stage is not None and (self.tensorboard or self.wandb):
            raise ft.OptionError(
                f"--stage {self.reading.stage} is for tables; leave out --tensorboard and --wandb"
            )
        if self.page.html is not None and (self.tensorboard or self.wandb):
            other = "--tensorboard" if self.tensorboard else "--wandb"
            raise ft.OptionError(f"give --html or {other}, not both")
        if self.save_workspace and not self.wandb:
            raise ft.OptionError("--save-workspace is for --wandb; add that, or leave it out")
        if self.port is not None and not self.tensorboard:
            raise ft.OptionError(f"--port {self.port} is for --tensorboard; add that, or leave it out")


@with_options(ViewRequest)
def view(request: ViewRequest) -> None:
    """Show a report as tables: modules in execution order, then blocks.

    Example: fno-telemetry view out/activation_report.json
    """
    if request.tensorboard:
        from fno_telemetry_cli.showing.tensorboard_server import serve

        serve(request.path, request.port or 0, request.printing.quiet)
    elif request.wandb:
        from fno_telemetry_cli.showing.wandb_view import show_wandb

        show_wandb(request.path, request.save_workspace, request.printing.as_json, request.printing.quiet)
    elif request.page.html is not None:
        _write_page(request, request.page.html)
        if request.printing.as_json:
            _show_reports(request)
    else:
        _show_reports(request)


def _show_reports(request: ViewRequest) -> None:
    history = find_history(request.path)
    stage = request.reading.stage
    reports, refused = (
        reports_below(request.path, stage) if history is None else record_at(history, request.step, stage)
    )
    if not request.printing.quiet:
        print_notes((f"left out: {reason}" for reason in refused), style="yellow")
    if request.printing.as_json:
        [record, *_] = reports.values()
        print_json(_document(request.path, list(reports)) if history is None else report.as_document(record))
        return
    captures = list(dict.fromkeys(file.parent for file in reports))
    if history is None and request.path.is_dir() and captures != [request.path]:
        _list_captures(reports, captures, request.printing.quiet)
        return
    width = stdout_console().width
    for file, record in reports.items():
        if file != request.path and not request.printing.quiet:
            print_results(shown(str(file), "dim"))
        print_results(record_view(record, width))


def _write_page(request: ViewRequest, page: Path) -> None:
    """Write a page of a report, of all reports of a capture, or of a whole history."""
    check_page_file(page)
    stage = request.reading.stage
    if (history := find_history(request.path)) is not None and request.step is not None:
        reports, refused = record_at(history, request.step, stage)
    else:
        reports, refused = reports_in(request.path, stage)
    if not (request.printing.quiet or request.printing.as_json):
        print_notes((f"left out: {reason}" for reason in refused), style="yellow")
    records = list(reports.values())
    if len(records) > 1:
        refuse_two_runs(reports.items())
        if without := [path for path, record in reports.items() if record.step is None]:
            raise ft.OptionError(
                f"--html: {len(records)} reports of unknown order in {request.path}, as {without[0].name} "
                "has no step; name one report"
            )
    line = write_page_file(page, records)
    if not request.printing.as_json:
        print_results(line)


def _list_captures(reports: Mapping[Path, ft.CaptureRecord], folders: Sequence[Path], quiet: bool) -> None:
    """Print a line for each report of several captures, and how to see more of them."""
    for file, record in reports.items():
        print_results(shown(str(file), "dim"), headline(record))
    if not quiet:
        names = [shlex.quote(str(folder)) for folder in folders]
        lines = [f"the tables of one: fno-telemetry view {names[0]}"]
        if len(names) > 1:
            lines.append(f"the runs compared with the first: fno-telemetry compare --group {' '.join(names)}")
        print_notes(lines)


def _document(path: Path, reports: list[Path]) -> dict[str, Any]:
    """Return the report as it is in the file, with what this version does not know."""
    if len(reports) > 1:
        names = ", ".join(str(file.relative_to(path)) for file in reports)
        raise ft.OptionError(f"--json prints one report and {path} holds {len(reports)}: name one of {names}")
    return report.read_document(reports[0])
