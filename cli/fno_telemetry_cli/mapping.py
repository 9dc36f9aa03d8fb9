"""`fno-telemetry map`: how a model was understood."""

from pathlib import Path
from typing import Annotated

import typer

import fno_telemetry as ft
from fno_telemetry import files
from fno_telemetry_cli import options
from fno_telemetry_cli.map_tree import map_document, map_view
from fno_telemetry_cli.output import keep_stdout_clean, print_json, print_notes, print_results
from fno_telemetry_cli.preparing import prepare, read_input
from fno_telemetry_cli.running import errors_in_one_line


def map_command(
    input: options.Input = None,  # noqa: A002 - the option is called --input
    key: options.Key = None,
    axes: options.Axes = None,
    batches: options.Batches = None,
    batch_size: options.BatchSize = None,
    max_samples: options.MaxSamples = 1,
    architecture: options.ArchitectureName = None,
    model: options.ModelFactory = None,
    settings: options.Settings = None,
    checkpoint: options.CheckpointPath = None,
    trust_checkpoint: options.TrustCheckpoint = False,
    allow_missing: options.AllowMissing = False,
    device: options.Device = "cpu",
    seed: options.Seed = 0,
    map_file: options.MapFile = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a TOML file here that --map reads back.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", metavar="", help="Replace an existing --output.")] = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Print what each module of a model is, and why it is thought to be that.

    Example: fno-telemetry map --input train.npz --output map.toml
    """
    source = options.Source.of(locals())
    if output is not None:
        _check_output(output, force)
    with keep_stdout_clean():
        prepared = prepare(source, read_input(source))
        with errors_in_one_line(prepared):
            model_map = ft.map_model(prepared.model, prepared.batches, given=prepared.given)
        if output is not None:
            ft.write_map(model_map, output)
    if as_json:
        print_json(map_document(model_map))
    else:
        print_results(map_view(model_map, str(prepared.summary["architecture"])))
    if output is not None and not quiet:
        print_notes([f"wrote {output}; --map reads it back"])


def _check_output(path: Path, force: bool) -> None:
    if path.is_dir():
        raise ft.OptionError(f"--output {path}: is a folder; give the name of a TOML file")
    if path.exists() and not force:
        raise ft.OptionError(f"--output {path} exists; add --force to replace it")
    if (reason := files.why_unwritable(path.parent)) is not None:
        raise ft.OptionError(f"--output {path}: cannot be written: {reason}; choose another folder")
