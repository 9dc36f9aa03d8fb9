"""`fno-telemetry view`: a report as a table in the terminal, in the real TensorBoard, or in W&B."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

import fno_telemetry as ft
from fno_telemetry import report
from fno_telemetry.wording import to_printable
from fno_telemetry_cli.options.choosing import LayerOptions
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
from fno_telemetry_cli.showing.chosen_layers import (
    Layers,
    check_choice,
    choose_in_document,
    choose_in_record,
    choose_layers,
)
from fno_telemetry_cli.showing.page_file import check_page_file, write_page_file
from fno_telemetry_cli.showing.record_view import View, chosen_view, one_screen, record_view
from fno_telemetry_cli.showing.tables import format_count, headline, shown
from fno_telemetry_cli.showing.terminal import print_json, print_notes, print_results, screen_of_stdout

_MOST_LISTED = 5  # earlier reports of a folder, in a terminal
_SPARE = 4  # lines of a screen: two for the name of the file, one for a hint, one for the next command


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
    choice: LayerOptions
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
        if self.choice.typed is not None and (self.tensorboard or self.wandb):
            raise ft.OptionError(f"{self.choice.typed} is for tables; leave out --tensorboard and --wandb")
        if self.page.html is not None and (self.choice.sort or self.choice.top or self.choice.show_all):
            raise ft.OptionError(
                f"{self.choice.typed_order} is for the terminal; the tables of a page are sorted in the "
                "browser, and --layers chooses what is on it"
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

    Example: fno-telemetry view out

    The five layers with the largest values: fno-telemetry view out --sort rms --top 5

    The branches of one block: fno-telemetry view out --layers 'fno_blocks.0*'
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
    history, choice = find_history(request.path), request.choice
    stage = request.reading.stage
    reports, refused = (
        reports_below(request.path, stage) if history is None else record_at(history, request.step, stage)
    )
    captures = list(dict.fromkeys(file.parent for file in reports))
    several = history is None and request.path.is_dir() and captures != [request.path]
    if several and choice.typed is not None:
        raise ft.OptionError(
            f"{choice.typed} is for the tables of one capture; name a folder, such as {captures[0]}"
        )
    check_choice(choice, reports.values())
    if not request.printing.quiet:
        print_notes((f"left out: {reason}" for reason in refused), style="yellow")
    if request.printing.as_json:
        [record, *_] = reports.values()
        document = _document(request.path, list(reports)) if history is None else report.as_document(record)
        print_json(choose_in_document(document, record, choice) if choice.chooses else document)
    elif several:
        _list_captures(reports, captures, request.printing.quiet)
    else:
        _show_tables(reports, request)


def _show_tables(reports: Mapping[Path, ft.CaptureRecord], request: ViewRequest) -> None:
    """Print all tables or, in a terminal, of the last record what fits on its screen and a line of others."""
    screen, choice, is_quiet = screen_of_stdout(), request.choice, request.printing.quiet
    whole = choice.typed is not None or not screen.is_terminal
    *earlier, last = reports.items()
    listed = [] if whole else earlier[-_MOST_LISTED:]
    if more := len(earlier) - len(listed) if not whole else 0:
        print_results(f"{more} earlier reports")
    for file, record in listed:
        print_results(Text.assemble((to_printable(f"{file.name}: "), "dim"), headline(record)))
    for file, record in [*earlier, last] if whole else [last]:
        if file != request.path and not is_quiet:
            print_results(shown(str(file), "dim"))
        if whole:
            layers = choose_layers(record, choice)
            chosen = chosen_view(record, layers, screen) if choice.chooses else record_view(record, screen)
            print_results(chosen)
            if choice.chooses and not is_quiet:
                print_notes([_count(record, layers)])
            continue
        view = one_screen(record, screen, _SPARE + 2 * len(listed))
        print_results(view.content)
        if not is_quiet and (view.shown < view.modules or earlier):
            print_notes([_how_to_see_more(view, len(earlier))], style="dim")


def _count(record: ft.CaptureRecord, layers: Layers) -> str:
    modules, blocks = (
        f"{len(chosen)} of {format_count(len(every), noun)}"
        for chosen, every, noun in (
            (layers.modules, record.modules, "module"),
            (layers.blocks, record.blocks, "block"),
        )
    )
    return f"{modules}, {blocks}"


def _how_to_see_more(view: View, earlier: int) -> str:
    listed = f"{view.shown or 'none'} of {format_count(view.modules, 'module')} listed"
    return f"{listed}; all{' (of every report)' if earlier else ''}: --all, some: --layers GLOB"


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
    check_choice(request.choice, reports.values())
    records = list(reports.values())
    if request.choice.layers:
        records = [choose_in_record(record, request.choice) for record in records]
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
