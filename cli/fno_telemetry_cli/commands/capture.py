"""`fno-telemetry capture`: runs a model over a few samples and sends a record per checkpoint to the sinks."""

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

import fno_telemetry as ft
from fno_telemetry import processes
from fno_telemetry.sinks import Outcome
from fno_telemetry_cli import launched
from fno_telemetry_cli.capturing.captures import Captures, Job, open_sinks
from fno_telemetry_cli.capturing.checkpoint_series import (
    CheckpointSeries,
    expand_globs,
    is_several,
    read_series,
)
from fno_telemetry_cli.capturing.folder_claims import claim_reports
from fno_telemetry_cli.capturing.input_batches import InputBatches, read_input
from fno_telemetry_cli.capturing.preparing import prepare
from fno_telemetry_cli.capturing.run_log import RunLog
from fno_telemetry_cli.capturing.running import errors_in_one_line
from fno_telemetry_cli.capturing.shards import Shard
from fno_telemetry_cli.capturing.target import Target
from fno_telemetry_cli.interrupts import finish_first
from fno_telemetry_cli.invocation import Invocation
from fno_telemetry_cli.options.config_file import apply_config
from fno_telemetry_cli.options.measuring import MeasuringOptions
from fno_telemetry_cli.options.model import (
    MODEL,
    InputOptions,
    NetworkOptions,
    PredictionOptions,
    Source,
    WeightOptions,
)
from fno_telemetry_cli.options.output import OutputOptions, PageOptions, PrintingOptions, WandbCaptureOptions
from fno_telemetry_cli.options.signature import with_options
from fno_telemetry_cli.showing.captured_reports import CapturedReports, show_captured_reports
from fno_telemetry_cli.showing.dry_run import Plan, show_plan
from fno_telemetry_cli.showing.findings_view import check_level, is_at_or_above
from fno_telemetry_cli.showing.page_file import check_page_file, write_page_file
from fno_telemetry_cli.showing.terminal import keep_stdout_clean, print_error, print_notes
from fno_telemetry_cli.sink_choice import choose_sinks

EXIT_FOUND, EXIT_FAILED_IN_PART = 1, 3


@dataclass(frozen=True, kw_only=True)
class CaptureRequest:
    """What `capture` was asked for."""

    data: InputOptions
    compared: PredictionOptions
    network: NetworkOptions
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            "--checkpoint",
            metavar="FILE|DIR|'GLOB'",
            help="File or folder with the weights. For several, repeat the option or quote a glob pattern, "
            "such as 'run/*.ckpt': each gets a report.",
            rich_help_panel=MODEL,
        ),
    ] = None
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            metavar="I/N|slurm",
            help="Capture only every N-th of several checkpoints, from the I-th on, in order of their steps; "
            "slurm takes I and N from the array job. Then join the reports with fno-telemetry merge.",
            rich_help_panel=MODEL,
        ),
    ] = None
    weights: WeightOptions
    measuring: MeasuringOptions
    destination: OutputOptions
    wandb: WandbCaptureOptions
    page: PageOptions
    printing: PrintingOptions
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            callback=apply_config,
            is_eager=True,
            help="TOML file with options of this command. An option on the command line overrides the file.",
        ),
    ] = None

    def __post_init__(self) -> None:
        check_level(self.level)
        if self.measuring.dry_run and self.diagnoses:
            raise ft.OptionError(
                "--dry-run captures nothing to diagnose; leave out --dry-run, or --diagnose and --fail-on"
            )
        if self.shard is not None:
            Shard.parse(self.shard)
            self._check_shard()
        if self.measuring.dry_run and self.page.html is not None:
            raise ft.OptionError("--dry-run writes nothing; leave out --dry-run or --html")
        if self.wandb.alert and not self.diagnoses:
            raise ft.OptionError("--wandb-alert sends what --diagnose finds; add --diagnose")

    def _check_shard(self) -> None:
        """Raise OptionError for what needs the whole series."""
        if not self.several:
            raise ft.OptionError(
                "--shard divides several checkpoints: repeat --checkpoint, or quote a glob pattern"
            )
        if self.diagnoses:
            raise ft.OptionError(
                "--diagnose judges the whole series: leave it out with --shard, and diagnose the folder then"
            )
        named = [name.strip() for part in self.destination.sink or () for name in part.split(",")]
        if others := [name for name in named if name != "json"]:
            raise ft.OptionError(
                f"--sink {others[0]}: with --shard reports alone are written; give it to fno-telemetry "
                "merge, which writes all steps in order"
            )

    @property
    def level(self) -> str:
        """The lowest severity that makes the exit code 1."""
        return self.measuring.fail_on or "never"

    @property
    def diagnoses(self) -> bool:
        """Whether the records are diagnosed."""
        return self.measuring.diagnose or self.measuring.fail_on is not None

    @property
    def several(self) -> bool:
        """Whether a report per checkpoint was asked for."""
        return is_several(self.checkpoint or ())

    @property
    def replaces_reports(self) -> bool:
        """Whether existing reports may be replaced, or are left alone because nothing is written."""
        return self.destination.force or self.measuring.dry_run

    def name_reports(self, *reports: Path) -> list[Path]:
        """Return the paths of these reports, and of those at another resolution if that was asked for."""
        factor = self.measuring.also_at
        others = [] if factor is None else [Target.resampled(path, factor) for path in reports]
        return [*reports, *others]

    def find_source(self) -> Source:
        """Return the model and its input; OptionError for a glob that matches nothing."""
        checkpoints = expand_globs(self.checkpoint or ())
        return Source(
            self.data,
            self.network,
            self.weights,
            checkpoints,
            self.measuring.loss,
            self.compared.prediction,
        )

    def find_target(self) -> Target:
        """Return where the reports go; OptionError when they cannot be written there."""
        given = self.destination
        writes = not self.measuring.dry_run
        shard = None if self.shard is None else Shard.parse(self.shard)
        label = None if shard is None else shard.label
        target = Target.of(given.output, given.output_json_name, given.experiment, writes, label)
        if not self.several and not self.replaces_reports:
            target.refuse_existing(self.name_reports(target.report))
        return target


@with_options(CaptureRequest)
def capture(context: typer.Context, request: CaptureRequest) -> None:
    """Run a model over a few samples and send the record to the chosen sinks.

    Example: fno-telemetry capture --input train.npz --output out

    For TensorBoard: fno-telemetry capture --input train.npz --output out --sink tensorboard --force

    What would be captured: fno-telemetry capture --input train.npz --output out --dry-run
    """
    if request.measuring.dry_run and not launched.is_first():
        return
    with contextlib.nullcontext() if request.measuring.dry_run else launched.joined_processes():
        code = _capture(context, request)
    if code:
        raise typer.Exit(code)


def _capture(context: typer.Context, request: CaptureRequest) -> int:
    """Capture, show what was captured and return the exit code, which is the same in all processes."""
    with processes.agree_on_errors():
        source, target = request.find_source(), request.find_target()
        if launched.is_first():
            check_page_file(request.page.html)
    with keep_stdout_clean():
        destination = request.destination
        sinks = choose_sinks(
            destination.sink or (),
            request.wandb,
            destination.sink_option or (),
            detail=destination.detail,
        )
        with processes.agree_on_errors():
            given = read_input(source)
            jobs, series = _list_jobs(source, request)
        if not jobs:
            outcome = Outcome({}, [])
            captured = CapturedReports({}, outcome, series.failures, None, series.notes, ())
        elif request.measuring.dry_run:
            plan = _plan(request.measuring, jobs[0], given, series)
        else:
            command = context.ensure_object(Invocation).command
            work = _Work(source, target, jobs, series, given, command)
            first = launched.is_first()
            captured = _run(request, work, ft.FanOut(sinks, required="json") if first else ft.FanOut(()))
    if request.measuring.dry_run and jobs:
        show_plan(plan, request.printing.as_json)
        return 0
    has_page = not launched.is_first() or _write_page(request, captured)
    code = 0
    if captured.failed_in_part or not has_page:
        code = EXIT_FAILED_IN_PART
    elif is_at_or_above(captured.findings or (), request.level):
        code = EXIT_FOUND
    code = processes.share_number(code)
    if launched.is_first():
        show_captured_reports(captured, request.printing)
    return code


def _write_page(request: CaptureRequest, captured: CapturedReports) -> bool:
    """Write the page if one was asked for; return whether there is one, or none was asked for."""
    if request.page.html is None:
        return True
    try:
        written = write_page_file(request.page.html, list(captured.reports.values()), captured.findings)
    except ft.TelemetryError as error:
        print_error(f"the page failed, the report is written: {error}")
        return False
    if not request.printing.quiet:
        print_notes([written])
    return True


@dataclass(frozen=True)
class _Work:
    """What is captured, on what, and where it goes."""

    source: Source
    target: Target
    jobs: list[Job]
    series: CheckpointSeries
    given: InputBatches
    command: str


def _list_jobs(source: Source, request: CaptureRequest) -> tuple[list[Job], CheckpointSeries]:
    """Return what is captured, in order, and the checkpoints that it comes from."""
    if not request.several:
        return [Job(source)], CheckpointSeries()
    series = read_series(source.checkpoints, source.weights)
    if not series.listed:
        raise ft.CheckpointError(f"none of the checkpoints can be read: {series.failures[0]}")
    if request.shard is not None:
        shard = Shard.parse(request.shard)
        listed = shard.select(series.listed)
        if not listed:
            # Of an array of more tasks than checkpoints, some have nothing to do.
            line = f"--shard {request.shard}: nothing to capture, of {len(series.listed)} checkpoints"
            series = replace(series, notes=(*series.notes, line))
        series = replace(series, listed=listed)
    jobs = [Job(source.at(one.path, one.name, counts=one.step is not None), one) for one in series.listed]
    return jobs, series


def _plan(measuring: MeasuringOptions, job: Job, given: InputBatches, series: CheckpointSeries) -> Plan:
    prepared = prepare(job.source, given)
    with errors_in_one_line(prepared):
        model_map = prepared.map_model()
    labels = tuple(listed.label for listed in series.listed)
    chosen = measuring.layers or (), measuring.exclude or ()
    return Plan.of(model_map, prepared.samples, len(prepared.batches), *chosen, labels)


def _run(request: CaptureRequest, work: _Work, sinks: ft.FanOut) -> CapturedReports:
    """Capture everything into the sinks, and write the log."""
    target, redact = work.target, request.destination.redact
    paths = [target.report]
    if request.several:
        paths = target.reports(listed.label for listed in work.series.listed)
    paths = request.name_reports(*paths)
    captures = _captures(request, work)
    log = RunLog(work.command)
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(contextlib.ExitStack())
        with processes.agree_on_errors():
            if launched.is_first():
                names = [path.name for path in paths]
                stack.enter_context(claim_reports(target.folder, names, force=request.destination.force))
                if not request.replaces_reports:
                    target.refuse_existing(paths)  # also one that another capture has finished meanwhile
            run = replace(target.run, redact=redact, series=request.several)
            opened.enter_context(open_sinks(sinks, run, captures))
        with opened:
            captures.run(work.jobs, work.given, sinks)
        with processes.agree_on_errors(), finish_first():
            outcome = sinks.close(ok=True)
            log.note_captures(captures.records, captures.failures, outcome.status)
            problems = []
            if launched.is_first():
                problems = target.replace_log(None if redact else log)
    reports = {_report_path(request, work, record): record for record in captures.records}
    failures = (*work.series.failures, *captures.failures)
    return CapturedReports(
        reports,
        outcome,
        failures,
        captures.findings,
        work.series.notes,
        tuple(problems),
        resampled=captures.resampled,
    )


def _report_path(request: CaptureRequest, work: _Work, record: ft.CaptureRecord) -> Path:
    [path] = work.target.reports([record.label]) if request.several else [work.target.report]
    return path


def _captures(request: CaptureRequest, work: _Work) -> Captures:
    paths = (work.source.data.input, *work.source.checkpoints, work.source.weights.map_file)
    paths = (*paths, request.destination.output, request.config)
    return Captures(
        {"command": work.command, "experiment": work.target.experiment},
        request.measuring.layers or (),
        request.measuring.exclude or (),
        request.measuring.budget,
        request.measuring.strict,
        paths if request.destination.redact else None,
        request.printing.quiet or not launched.is_first(),
        lambda record: str(_report_path(request, work, record)),
        request.diagnoses,
        request.measuring.also_at,
    )
