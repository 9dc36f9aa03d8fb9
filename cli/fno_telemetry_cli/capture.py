"""`fno-telemetry capture`: runs a model over a few samples and hands one record to the chosen sinks."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

import fno_telemetry as ft
from fno_telemetry_cli import options
from fno_telemetry_cli.config_file import apply_config, command_line_first
from fno_telemetry_cli.dry_run import Plan
from fno_telemetry_cli.invocation import Invocation
from fno_telemetry_cli.output import print_error, print_json, print_notes, print_results, stdout_kept_clean
from fno_telemetry_cli.preparing import Prepared, prepare
from fno_telemetry_cli.redaction import redacted
from fno_telemetry_cli.run_log import RunLog
from fno_telemetry_cli.running import errors_in_one_line, progress_bar
from fno_telemetry_cli.sink_choice import (
    SinkNames,
    WandbEntity,
    WandbLayout,
    WandbMode,
    WandbOptions,
    WandbProject,
    chosen_sinks,
)
from fno_telemetry_cli.tables import counted, headline, notes, some
from fno_telemetry_cli.target import Target

EXIT_SINK_FAILED = 3
_MEASURED, _OUTPUT = "Measured", "Output"


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
    checkpoint: options.CheckpointPath = None,
    trust_checkpoint: options.TrustCheckpoint = False,
    allow_missing: options.AllowMissing = False,
    device: options.Device = "cpu",
    seed: options.Seed = 0,
    map_file: options.MapFile = None,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            help="Measure what matches only; * crosses dots. Repeatable.",
            rich_help_panel=_MEASURED,
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB", help="Do not measure what matches. Repeatable.", rich_help_panel=_MEASURED
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            metavar="",
            help="A layer that does not fire, or a failing sink, is fatal.",
            rich_help_panel=_MEASURED,
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            metavar="",
            help="Say what would be captured, and its memory; write nothing.",
            rich_help_panel=_MEASURED,
        ),
    ] = False,
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
    source = options.Source.of(command_line_first(context, locals()))
    target = Target.of(output, output_json_name, experiment, force, writes=not dry_run)
    with stdout_kept_clean():
        wandb = WandbOptions(wandb_project, wandb_entity, wandb_mode, wandb_layout)
        fan_out = ft.FanOut(chosen_sinks(sink or [], wandb))
        prepared = prepare(source)
        if dry_run:
            plan = _plan(prepared, layers or (), exclude or ())
        else:
            command = context.ensure_object(Invocation).command
            log = RunLog(command)
            with _open(fan_out, replace(target.run, redact=redact)):
                record = _record(prepared, command, layers or (), exclude or (), quiet)
                _refuse_nothing(record)
                if strict:
                    _refuse_unfired(record)
                if redact:
                    paths = (source.input, source.checkpoint, source.map_file, output, config)
                    record = redacted(record, paths)
                fan_out.write(record)
            outcome = fan_out.close(ok=True)
            log.note_capture(record, outcome.status)
            problems = target.replace_log(None if redact else log)
    if dry_run:
        _show_plan(plan, as_json)
        return
    failed = {name: reason for name, reason in outcome.status.items() if reason != "ok"}
    for name, reason in failed.items():
        print_error(f"the {name} sink failed, the report is written: {reason}")
    _show(record, outcome, target, as_json, quiet)
    if not quiet:
        print_notes((*notes(record), *problems), style="yellow")
        if outcome.lines and not as_json:
            print_notes(["look at it:", *(f"  {line}" for line in outcome.lines)])
    if failed:
        raise typer.Exit(EXIT_SINK_FAILED)


@contextlib.contextmanager
def _open(fan_out: ft.FanOut, run: ft.RunContext) -> Iterator[None]:
    """Open the sinks before the model runs, so that a missing one is known at once."""
    fan_out.open(run)
    try:
        yield
    except BaseException:
        fan_out.close(ok=False)
        raise


def _plan(prepared: Prepared, layers: Sequence[str], exclude: Sequence[str]) -> Plan:
    with errors_in_one_line(prepared):
        model_map = ft.map_model(prepared.model, prepared.batches, given=prepared.given)
    return Plan.of(model_map, prepared.samples, layers, exclude)


def _record(
    prepared: Prepared, command: str, layers: Sequence[str], exclude: Sequence[str], quiet: bool
) -> ft.CaptureRecord:
    with progress_bar(prepared.samples, quiet) as progress, errors_in_one_line(prepared):
        return ft.capture(
            prepared.model,
            prepared.batches,
            summary=prepared.summary,
            provenance=prepared.provenance | {"command": command},
            warnings=prepared.warnings,
            progress=progress,
            given=prepared.given,
            layers=layers,
            exclude=exclude,
        )


def _refuse_nothing(record: ft.CaptureRecord) -> None:
    """Raise when no module could be measured: a report of nothing would look as if all were well."""
    if not record.modules:
        reasons = "; ".join(notes(record)) or "no module that was chosen returned a tensor"
        raise ft.ModelError(f"nothing could be measured: {reasons}; fno-telemetry map shows what there is")


def _refuse_unfired(record: ft.CaptureRecord) -> None:
    if record.not_fired:
        names = some([entry["name"] for entry in record.not_fired])
        reason = record.not_fired[0]["reason"]
        raise ft.MapError(f"--strict: {names} did not fire: {reason}; leave --strict out to accept that")


def _show_plan(plan: Plan, as_json: bool) -> None:
    if as_json:
        print_json(plan.document())
    else:
        print_results(*plan.lines())


def _show(record: ft.CaptureRecord, outcome: ft.Outcome, target: Target, as_json: bool, quiet: bool) -> None:
    if as_json:
        summary = ft.as_document(record)["summary"]
        report = {"path": str(target.report), "step": record.step, "summary": summary}
        document = {"schema": "fno-telemetry-capture/1", "reports": [report]}
        print_json(document | {"sinks": outcome.status, "errors": []})
    elif not quiet:
        modules, blocks = counted(len(record.modules), "module"), counted(len(record.blocks), "block")
        print_results(headline(record), f"{target.report}: {modules}, {blocks}")
