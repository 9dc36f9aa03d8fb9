"""`fno-telemetry capture`: runs a model over a few samples and hands one record to the chosen sinks."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

import fno_telemetry as ft
from fno_telemetry_cli import options
from fno_telemetry_cli.captures import Captures, Job
from fno_telemetry_cli.checkpoint_series import (
    CheckpointSeries,
    Failure,
    expand_globs,
    is_several,
    read_series,
)
from fno_telemetry_cli.config_file import apply_config, prefer_command_line
from fno_telemetry_cli.dry_run import Plan
from fno_telemetry_cli.findings_view import check_level, findings_document, findings_view, is_at_or_above
from fno_telemetry_cli.invocation import Invocation
from fno_telemetry_cli.output import keep_stdout_clean, print_error, print_json, print_notes, print_results
from fno_telemetry_cli.preparing import InputBatches, prepare, read_input
from fno_telemetry_cli.run_log import RunLog
from fno_telemetry_cli.running import errors_in_one_line
from fno_telemetry_cli.sink_choice import (
    SinkNames,
    WandbAlert,
    WandbEntity,
    WandbLayout,
    WandbMode,
    WandbOptions,
    WandbProject,
    choose_sinks,
)
from fno_telemetry_cli.tables import format_count, headline, notes
from fno_telemetry_cli.target import Target

EXIT_FOUND, EXIT_FAILED_IN_PART = 1, 3
_OUTPUT = "Output"


def capture(
    context: typer.Context,
    input: options.Input = None,  # noqa: A002 - the option is called --input
    key: options.Key = None,
    axes: options.Axes = None,
    batches: options.Batches = None,
    batch_size: options.BatchSize = None,
    max_samples: options.MaxSamples = 8,
    architecture: options.ArchitectureName = None,
    model: options.ModelFactory = None,
    settings: options.Settings = None,
    checkpoint: options.CheckpointPaths = None,
    trust_checkpoint: options.TrustCheckpoint = False,
    allow_missing: options.AllowMissing = False,
    device: options.Device = "cpu",
    seed: options.Seed = 0,
    map_file: options.MapFile = None,
    loss: options.LossFunction = None,
    layers: options.Layers = None,
    exclude: options.Exclude = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            metavar="",
            help="A layer that does not fire, or a failing sink, is fatal.",
            rich_help_panel=options.MEASURED,
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            metavar="",
            help="Say what would be captured, and its memory; write nothing.",
            rich_help_panel=options.MEASURED,
        ),
    ] = False,
    diagnose: options.Diagnose = False,
    fail_on: options.FailOn = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder for the report; made if missing. Required.", rich_help_panel=_OUTPUT
        ),
    ] = None,
    sink: SinkNames = None,
    output_json_name: Annotated[
        str, typer.Option(metavar="NAME", help="Name of the report in the folder.", rich_help_panel=_OUTPUT)
    ] = "activation_report.json",
    experiment: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Names the run in dashboards. Default: the output folder's name.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", metavar="", help="Replace an existing report.", rich_help_panel=_OUTPUT),
    ] = False,
    redact: Annotated[
        bool,
        typer.Option(
            "--redact", metavar="", help="Keep paths out of the report; no log.", rich_help_panel=_OUTPUT
        ),
    ] = False,
    wandb_project: WandbProject = None,
    wandb_entity: WandbEntity = None,
    wandb_mode: WandbMode = None,
    wandb_layout: WandbLayout = None,
    wandb_alert: WandbAlert = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            callback=apply_config,
            is_eager=True,
            help="TOML file with these options; the command line wins.",
        ),
    ] = None,
) -> None:
    """Run a model over a few samples and hand one record to the chosen sinks.

    Example: fno-telemetry capture --input train.npz --output out
    """
    diagnose = diagnose or fail_on is not None
    check_level(fail_on or "never")
    if dry_run and diagnose:
        raise ft.OptionError("--dry-run captures nothing that --diagnose could judge; leave one out")
    if wandb_alert and not diagnose:
        raise ft.OptionError("--wandb-alert tells what --diagnose finds; add --diagnose")
    source = options.Source.of(prefer_command_line(context, locals()))
    several = is_several(source.checkpoints)
    source = replace(source, checkpoints=expand_globs(source.checkpoints))
    target = Target.of(output, output_json_name, experiment, writes=not dry_run)
    if not several and not dry_run and not force:
        target.refuse_existing([target.report])
    wandb = WandbOptions(wandb_project, wandb_entity, wandb_mode, wandb_layout, wandb_alert)
    with keep_stdout_clean():
        fan_out = ft.FanOut(choose_sinks(sink or [], wandb), required="json")
        given = read_input(source)
        jobs, series = _jobs(source, several)
        if dry_run:
            plan = _plan(jobs, given, layers or (), exclude or (), series)
        else:
            if several and not force:
                target.refuse_existing(target.reports(listed.label for listed in series.listed))
            command = context.ensure_object(Invocation).command
            paths = (source.input, *source.checkpoints, source.map_file, output, config) if redact else None
            captures = Captures(
                {"command": command, "experiment": target.experiment},
                *(layers or (), exclude or ()),
                strict,
                paths,
                quiet,
                diagnose,
            )
            log = RunLog(command)
            with _open(fan_out, replace(target.run, redact=redact, series=several), captures):
                captures.run(jobs, given, fan_out)
            outcome = fan_out.close(ok=True)
            log.note_captures(captures.records, captures.failures, outcome.status)
            problems = target.replace_log(None if redact else log)
    if dry_run:
        _show_plan(plan, as_json)
        return
    failures = (*series.failures, *captures.failures)
    for failure in failures:
        print_error(f"not captured: {failure}")
    failed = {name: reason for name, reason in outcome.status.items() if reason != "ok"}
    for name, reason in failed.items():
        print_error(f"the {name} sink failed, the report is written: {reason}")
    reports = dict(zip(_paths(target, captures.records, several), captures.records, strict=True))
    findings = ft.diagnose(*reports.values(), reports=[str(path) for path in reports]) if diagnose else None
    if as_json:
        print_json(_document(reports, outcome, failures, findings))
    else:
        lines = () if quiet else _lines(reports)
        print_results(*lines, *findings_view(findings or (), quiet) if diagnose else ())
    if not quiet:
        print_notes((*series.notes, *_notes_of_all(captures.records), *problems), style="yellow")
        if outcome.lines and not as_json:
            print_notes(["look at it:", *(f"  {line}" for line in outcome.lines)])
    if failed or failures:
        raise typer.Exit(EXIT_FAILED_IN_PART)
    if is_at_or_above(findings or (), fail_on or "never"):
        raise typer.Exit(EXIT_FOUND)


def _jobs(source: options.Source, several: bool) -> tuple[list[Job], CheckpointSeries]:
    """Return what is to be captured, in order, and what is known of the checkpoints before."""
    if not several:
        return [Job(source)], CheckpointSeries()
    series = read_series(source.checkpoints, source.trust_checkpoint)
    if not series.listed:
        raise ft.CheckpointError(f"none of the checkpoints can be read: {series.failures[0]}")
    return [Job(source.at(listed.path, listed.name), listed) for listed in series.listed], series


@contextlib.contextmanager
def _open(fan_out: ft.FanOut, run: ft.RunContext, captures: Captures) -> Iterator[None]:
    """Open the sinks before a model runs, so that a missing one is known at once."""
    fan_out.open(run)
    try:
        yield
    except KeyboardInterrupt:
        # What is finished is whole, and stays.
        fan_out.close(ok=bool(captures.records))
        if captures.records:
            done = ", ".join(record.label for record in captures.records)
            print_notes([f"{format_count(len(captures.records), 'report')} finished before: {done}"])
        raise
    except BaseException:
        fan_out.close(ok=False)
        raise


def _plan(
    jobs: Sequence[Job],
    given: InputBatches,
    layers: Sequence[str],
    exclude: Sequence[str],
    series: CheckpointSeries,
) -> Plan:
    prepared = prepare(jobs[0].source, given)
    with errors_in_one_line(prepared):
        model_map = ft.map_model(prepared.model, prepared.batches, given=prepared.given)
    labels = tuple(listed.label for listed in series.listed)
    return Plan.of(model_map, prepared.samples, layers, exclude, labels)


def _paths(target: Target, records: Sequence[ft.CaptureRecord], several: bool) -> list[Path]:
    return target.reports(record.label for record in records) if several else [target.report]


def _show_plan(plan: Plan, as_json: bool) -> None:
    if as_json:
        print_json(plan.document())
    else:
        print_results(*plan.lines())


def _document(
    reports: Mapping[Path, ft.CaptureRecord],
    outcome: ft.Outcome,
    failures: Sequence[Failure],
    findings: Sequence[ft.Finding] | None,
) -> dict[str, Any]:
    diagnosed = {} if findings is None else {"findings": findings_document(findings)}
    return {
        "schema": "fno-telemetry-capture/1",
        "reports": [
            {"path": str(path), "step": record.step, "summary": ft.as_document(record)["summary"]}
            for path, record in reports.items()
        ],
        "sinks": outcome.status,
        "errors": [{"checkpoint": str(f.path), "error": f.reason} for f in failures],
    } | diagnosed


def _notes_of_all(records: Sequence[ft.CaptureRecord]) -> Iterator[str]:
    """Yield the notes of all records; what is true of every checkpoint is said once."""
    said: dict[str, list[str]] = {}
    for record in records:
        path = (record.provenance.get("checkpoint") or {}).get("path")
        for line in notes(record):
            said.setdefault(line.replace(path, "every checkpoint") if path else line, []).append(line)
    for line, lines in said.items():
        yield from [line] if 1 < len(records) == len(lines) else dict.fromkeys(lines)


def _lines(reports: Mapping[Path, ft.CaptureRecord]) -> Iterator[Text | str]:
    """Yield what a reader sees first: what was captured, and where each report is."""
    for path, record in reports.items():
        modules, blocks = (
            format_count(len(record.modules), "module"),
            format_count(len(record.blocks), "block"),
        )
        yield headline(record)
        yield f"{path}: {modules}, {blocks}"
