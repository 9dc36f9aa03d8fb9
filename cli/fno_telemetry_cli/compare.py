"""`fno-telemetry compare`: what changed between reports, where first, since when, and is it worse."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

import fno_telemetry as ft
from fno_telemetry.comparison import read_thresholds
from fno_telemetry_cli import options
from fno_telemetry_cli.checkpoint_series import names_of_all
from fno_telemetry_cli.comparison_view import comparison_document, comparison_view
from fno_telemetry_cli.config_file import list_typed_options
from fno_telemetry_cli.findings_view import LEVELS, check_level
from fno_telemetry_cli.invocation import Invocation
from fno_telemetry_cli.output import keep_stdout_clean, print_error, print_json, print_notes, print_results
from fno_telemetry_cli.preparing import prepare, read_input
from fno_telemetry_cli.replaying import Replays
from fno_telemetry_cli.reports_in import reports_in
from fno_telemetry_cli.running import captured
from fno_telemetry_cli.sink_choice import (
    WandbEntity,
    WandbLayout,
    WandbMode,
    WandbOptions,
    WandbProject,
)

EXIT_WORSE, EXIT_SINK_FAILED = 1, 3


def compare(
    context: typer.Context,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="REPORT|DIR|CHECKPOINT…",
            help="Reports, folders of reports, or checkpoints, which are captured on --input first.",
        ),
    ],
    group: Annotated[
        bool,
        typer.Option(
            "--group", metavar="", help="The first is a baseline, the others runs of one experiment (seeds)."
        ),
    ] = False,
    allow_different_input: Annotated[
        bool,
        typer.Option("--allow-different-input", metavar="", help="Compare captures of different samples."),
    ] = False,
    thresholds: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML file with a table compare that sets limits.")
    ] = None,
    fail_on: Annotated[
        str,
        typer.Option(metavar="LEVEL", help="Exit 1 from here on: note, warning (worse), error or never."),
    ] = "warning",
    input: options.Input = None,  # noqa: A002 - the option is called --input
    key: options.Key = None,
    axes: options.Axes = None,
    batches: options.Batches = None,
    batch_size: options.BatchSize = None,
    max_samples: options.MaxSamples = 8,
    architecture: options.ArchitectureName = None,
    model: options.ModelFactory = None,
    settings: options.Settings = None,
    trust_checkpoint: options.TrustCheckpoint = False,
    allow_missing: options.AllowMissing = False,
    device: options.Device = "cpu",
    seed: options.Seed = 0,
    map_file: options.MapFile = None,
    sink: Annotated[
        list[str] | None,
        typer.Option(
            "--sink",
            metavar="NAMES",
            help="Write what is compared into dashboards: tensorboard, wandb, …; comma list or repeated.",
            rich_help_panel="Output",
            autocompletion=options.names_of("sinks"),
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for the dashboards of --sink.", rich_help_panel="Output"),
    ] = None,
    wandb_project: WandbProject = None,
    wandb_entity: WandbEntity = None,
    wandb_mode: WandbMode = None,
    wandb_layout: WandbLayout = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Say what changed per layer and block, where first, since which step, and whether it is worse.

    Two reports are compared with each other; more are a series over their steps.

    Example: fno-telemetry compare before/activation_report.json after/activation_report.json
    """
    check_level(fail_on)
    limits = read_thresholds(thresholds) if thresholds else None
    source = options.Source.of({**locals(), "checkpoint": None})
    replays = None
    if sink or output:
        wandb = WandbOptions(wandb_project, wandb_entity, wandb_mode, wandb_layout)
        replays = Replays.of(sink or [], wandb, output)
    elif typed := WandbOptions(wandb_project, wandb_entity, wandb_mode, wandb_layout).typed:
        raise ft.OptionError(f"--wandb-{typed[0]} is for the wandb sink; add --sink wandb")
    command = context.ensure_object(Invocation).command
    with keep_stdout_clean():
        found, left_out = _records(paths, source, list_typed_options(context, options.SOURCE), command, quiet)
        if not quiet:
            print_notes(left_out)
        if len(found) < 2:
            raise ft.ReportError(
                f"{', '.join(map(str, paths))}: {len(found)} report; compare needs at least two"
            )
        comparison = ft.compare(
            *(record for _, record in found),
            thresholds=limits,
            allow_different_input=allow_different_input,
            group=group,
        )
        outcome = replays.run(found) if replays is not None else None
    failed = {name: why for name, why in outcome.status.items() if why != "ok"} if outcome else {}
    for name, reason in failed.items():
        print_error(f"the {name} sink failed: {reason}")
    if as_json:
        sinks: dict[str, Any] = {} if outcome is None else {"sinks": outcome.status}
        print_json(comparison_document(comparison) | sinks)
    else:
        print_results(*comparison_view(comparison, quiet))
        if outcome is not None and not quiet:
            print_notes(["look at it:", *(f"  {line}" for line in outcome.lines)])
    if comparison.severity is not None and LEVELS.index(comparison.severity) >= LEVELS.index(fail_on):
        raise typer.Exit(EXIT_WORSE)
    if failed:
        raise typer.Exit(EXIT_SINK_FAILED)


def _records(
    paths: list[Path], source: options.Source, typed: list[str], command: str, quiet: bool
) -> tuple[list[tuple[Path, ft.CaptureRecord]], list[str]]:
    """Return the records behind the paths, in their order, and why other files of a folder are none."""
    checkpoints = [path for path in paths if not path.is_dir() and path.suffix != ".json"]
    if checkpoints and source.input is None and source.batches is None:
        raise ft.OptionError(
            f"{checkpoints[0]} is no report; to capture it as a checkpoint, add the samples: --input FILE"
        )
    if not checkpoints and typed:
        raise ft.OptionError(f"{typed[0]} is for checkpoints, and only reports were given")
    given = read_input(replace(source, checkpoints=tuple(checkpoints))) if checkpoints else None
    names = dict(zip(checkpoints, names_of_all(checkpoints), strict=True))
    found: list[tuple[Path, ft.CaptureRecord]] = []
    left_out: list[str] = []
    for path in paths:
        if given is not None and path in names:
            prepared = prepare(source.at(path, names[path]), given)
            place = f"capturing {path.name}"
            record = captured(prepared, provenance={"command": command}, doing=place, quiet=quiet)
            found.append((path, record))
        else:
            reports, refused = reports_in(path)
            found += reports.items()
            left_out += [f"left out: {reason}" for reason in refused]
    return found, left_out
