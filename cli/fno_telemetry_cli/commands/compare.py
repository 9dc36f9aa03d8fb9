"""`fno-telemetry compare`: what changed between reports, in which layer first, and whether it is worse."""

# Annotations name classes whose modules import numpy; they are not evaluated.
from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import fno_telemetry as ft
from fno_telemetry import report
from fno_telemetry.comparison import read_thresholds
from fno_telemetry_cli.capturing.checkpoint_series import is_checkpoint, names_of_all
from fno_telemetry_cli.invocation import Invocation
from fno_telemetry_cli.options.config_file import list_typed_options
from fno_telemetry_cli.options.judging import ComparisonOptions
from fno_telemetry_cli.options.model import (
    InputOptions,
    NetworkOptions,
    PredictionOptions,
    Source,
    WeightOptions,
)
from fno_telemetry_cli.options.output import DashboardOptions, PageOptions, PrintingOptions, WandbOptions
from fno_telemetry_cli.options.reading import ReadingOptions
from fno_telemetry_cli.options.signature import list_parameters, with_options
from fno_telemetry_cli.reports_in import find_history, leave_out_resampled, refuse_two_runs, reports_in_all
from fno_telemetry_cli.showing.comparison_view import comparison_document, comparison_view
from fno_telemetry_cli.showing.findings_view import LEVELS, check_level
from fno_telemetry_cli.showing.page_file import check_page_file, write_page_file
from fno_telemetry_cli.showing.terminal import (
    keep_stdout_clean,
    print_error,
    print_json,
    print_notes,
    print_results,
    stdout_console,
)

if TYPE_CHECKING:
    from fno_telemetry.sinks import Outcome
    from fno_telemetry_cli.capturing.input_batches import InputBatches
    from fno_telemetry_cli.replaying import Replays

EXIT_WORSE, EXIT_SINK_FAILED = 1, 3

Found = list[tuple[Path, ft.CaptureRecord]]


@dataclass(frozen=True, kw_only=True)
class CompareRequest:
    """What `compare` was asked for."""

    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="REPORT|DIR|HISTORY|CHECKPOINT…",
            help="Reports, folders of reports, histories, or checkpoints. A checkpoint is first run on "
            "--input and captured.",
        ),
    ]
    judging: ComparisonOptions
    reading: ReadingOptions
    data: InputOptions
    compared: PredictionOptions
    network: NetworkOptions
    weights: WeightOptions
    dashboards: DashboardOptions
    wandb: WandbOptions
    page: PageOptions
    printing: PrintingOptions

    def __post_init__(self) -> None:
        check_level(self.judging.fail_on)
        dashboards = self.dashboards
        if not dashboards.sink and not dashboards.output:
            if typed := [*self.wandb.typed]:
                raise ft.OptionError(f"--wandb-{typed[0]} is for the wandb sink; add --sink wandb")
            if dashboards.sink_option:
                raise ft.OptionError(
                    f"--sink-option {dashboards.sink_option[0]}: no sink is chosen; add --sink and --output"
                )
            if dashboards.detail:
                raise ft.OptionError(
                    f"--detail {dashboards.detail}: no sink is chosen; add --sink and --output"
                )

    @property
    def replays(self) -> Replays | None:
        """The dashboards to write; None when none were asked for."""
        from fno_telemetry_cli.replaying import Replays

        asked = self.dashboards
        return Replays.of(asked, self.wandb) if asked.sink or asked.output else None

    @property
    def checkpoints(self) -> tuple[Path, ...]:
        """The paths that are captured first."""
        return tuple(filter(is_checkpoint, self.paths))

    @property
    def source(self) -> Source:
        """The model and its input; TelemetryError when a checkpoint or the input is missing."""
        for path in self.checkpoints:
            if not path.exists():
                raise ft.ReportError(f"{path}: no such file or folder; check the path")
        if self.data.input is None and self.data.batches is None:
            raise ft.OptionError(
                f"{self.checkpoints[0]} is not a report; to capture it as a checkpoint, add --input FILE"
            )
        prediction = self.compared.prediction
        return Source(self.data, self.network, self.weights, self.checkpoints, prediction=prediction)


@with_options(CompareRequest)
def compare(context: typer.Context, request: CompareRequest) -> None:
    """Print what changed in each layer and block, and whether it got worse.

    Two reports are compared with each other. Three or more are taken as one run, in the order of their
    steps. The result names the first layer that changed and, for a run, the step at which it broke.

    Example: fno-telemetry compare before after

    Every layer that changed: fno-telemetry compare before after --all

    Runs of one experiment with the first: fno-telemetry compare --group before after
    """
    _refuse_idle_options(context, request)
    limits = read_thresholds(request.judging.thresholds) if request.judging.thresholds else None
    replays = request.replays
    check_page_file(request.page.html)
    with keep_stdout_clean():
        found, notes = _read_records(request, context.ensure_object(Invocation).command)
        if not request.printing.quiet:
            print_notes(notes)
        comparison = _compare(request, found, limits)
        outcome = replays.run(found) if replays is not None else None
        written = _write_page(request, found, comparison)
    failed = _failures(outcome)
    for name, reason in failed.items():
        print_error(f"the {name} sink failed: {reason}")
    _show(comparison, outcome, request)
    if written is not None and not request.printing.quiet:
        print_notes([written])
    if comparison.severity is not None and LEVELS.index(comparison.severity) >= LEVELS.index(
        request.judging.fail_on
    ):
        raise typer.Exit(EXIT_WORSE)
    if failed:
        raise typer.Exit(EXIT_SINK_FAILED)


def _refuse_idle_options(context: typer.Context, request: CompareRequest) -> None:
    """Raise OptionError for an option about models that was typed when no checkpoint was given."""
    groups = (InputOptions, PredictionOptions, NetworkOptions, WeightOptions)
    names = [parameter.name for group in groups for parameter in list_parameters(group)]
    typed = list_typed_options(context, names)
    if typed and not request.checkpoints:
        raise ft.OptionError(f"{typed[0]} is for checkpoints, and only reports were given")


def _read_records(request: CompareRequest, command: str) -> tuple[Found, list[str]]:
    """Return the records at the paths, in their order, and a line for each file that is left out."""
    from fno_telemetry_cli.capturing.input_batches import read_input

    checkpoints = request.checkpoints
    given = read_input(request.source) if checkpoints else None
    names = dict(zip(checkpoints, names_of_all(checkpoints), strict=True))
    found: Found = []
    notes: list[str] = []
    for path in request.paths:
        if given is not None and path in names:
            source = request.source.at(path, names[path])
            found.append((path, _capture(source, given, command, request.printing.quiet)))
        else:
            reports, left_out = reports_in_all([path], request.reading.stage)
            found += reports.items()
            notes += left_out
    if len(found) > 2:
        # A glob names those of the same fields at another resolution too.
        kept = leave_out_resampled(dict(found))
        found = [(path, record) for path, record in found if path in kept]
    return found, notes


def _capture(source: Source, given: InputBatches, command: str, quiet: bool) -> ft.CaptureRecord:
    from fno_telemetry_cli.capturing.preparing import prepare
    from fno_telemetry_cli.capturing.running import capture_record

    prepared = prepare(source, given)
    place = f"capturing {source.checkpoint.name}" if source.checkpoint else "capturing"
    return capture_record(prepared, provenance={"command": command}, doing=place, quiet=quiet)


def _compare(request: CompareRequest, found: Found, limits: ft.Thresholds | None) -> ft.Comparison:
    if len(found) < 2:
        raise ft.ReportError(
            f"{', '.join(map(str, request.paths))}: {len(found)} report; compare needs at least two"
        )
    if len(found) > 2 and not request.judging.group:
        refuse_two_runs(found)
    return ft.compare(
        *(_runs(request.paths, found) if request.judging.group else (record for _, record in found)),
        thresholds=limits,
        allow_different_input=request.judging.allow_different_input,
        group=request.judging.group,
    )


def _runs(paths: Iterable[Path], found: Found) -> Iterator[ft.CaptureRecord]:
    """Yield a record for each run: of a folder or history with steps, that of the last one."""
    for path in paths:
        # By file, since a path may be given twice.
        place = find_history(path) or path
        records = [*{file: record for file, record in found if place in (file, file.parent)}.values()]
        # Reports without a step are runs of their own, such as several seeds in one folder.
        holds_steps = place != path or path.is_dir() or report.is_history(path)
        if holds_steps and all(record.step is not None for record in records):
            yield max(records, key=lambda record: record.step or 0)
        else:
            yield from records


def _write_page(request: CompareRequest, found: Found, comparison: ft.Comparison) -> str | None:
    """Write the page if one was asked for; return a line that says where it is."""
    if request.page.html is None:
        return None
    paths = [path for path, _ in found]
    # Two reports are compared in the order in which they were given.
    records = [record for _, record in found]
    labels = [record.spelled_step or path.stem for path, record in found]
    names = labels if len(set(labels)) == len(labels) else [str(path) for path in paths]
    return write_page_file(request.page.html, records, comparison=comparison, names=names)


def _failures(outcome: Outcome | None) -> dict[str, str]:
    """Return the sinks that failed, with the reasons."""
    return {name: why for name, why in outcome.status.items() if why != "ok"} if outcome else {}


def _show(comparison: ft.Comparison, outcome: Outcome | None, request: CompareRequest) -> None:
    printing = request.printing
    if printing.as_json:
        sinks: dict[str, Any] = {} if outcome is None else {"sinks": outcome.status}
        print_json(comparison_document(comparison) | sinks)
        return
    if printing.quiet:
        print_results(comparison.verdict)
        return
    print_results(*comparison_view(comparison, stdout_console().width, request.judging.show_all))
    if outcome is not None and outcome.lines:
        print_notes(["look at it:", *(f"  {line}" for line in outcome.lines)])
