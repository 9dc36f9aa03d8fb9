"""`fno-telemetry map`: the role and axes of each module, and why."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

import fno_telemetry as ft
from fno_telemetry.files import why_unwritable
from fno_telemetry_cli.capturing.input_batches import read_input
from fno_telemetry_cli.capturing.preparing import prepare
from fno_telemetry_cli.capturing.running import errors_in_one_line
from fno_telemetry_cli.options.model import MODEL, InputOptions, NetworkOptions, Source, WeightOptions
from fno_telemetry_cli.options.output import PrintingOptions
from fno_telemetry_cli.options.signature import with_options
from fno_telemetry_cli.showing.map_tree import map_document, map_view
from fno_telemetry_cli.showing.terminal import keep_stdout_clean, print_json, print_notes, print_results


@dataclass(frozen=True, kw_only=True)
class _InputOfMap(InputOptions):
    max_samples: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Run the model on the first N samples. Default: 1.",
            show_default=False,
            rich_help_panel="Input",
        ),
    ] = 1


@dataclass(frozen=True, kw_only=True)
class MapRequest:
    """What `map` was asked for."""

    data: _InputOfMap
    network: NetworkOptions
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            "--checkpoint",
            metavar="FILE|DIR",
            help="File, or folder, with the weights.",
            rich_help_panel=MODEL,
        ),
    ] = None
    weights: WeightOptions
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML file to write. Correct it and give it to --map.")
    ] = None
    force: Annotated[
        bool, typer.Option("--force", metavar="", help="Replace the --output file if it exists.")
    ] = False
    printing: PrintingOptions

    def __post_init__(self) -> None:
        path = self.output
        if path is None:
            return
        if path.is_dir():
            raise ft.OptionError(f"--output {path}: is a folder; give the name of a TOML file")
        if path.exists() and not self.force:
            raise ft.OptionError(f"--output {path} exists; add --force to replace it")
        if (reason := why_unwritable(path.parent)) is not None:
            raise ft.OptionError(f"--output {path}: cannot be written: {reason}; choose another folder")

    @property
    def source(self) -> Source:
        """The model and its input."""
        return Source(self.data, self.network, self.weights, tuple(self.checkpoint or ()))


@with_options(MapRequest)
def map_model(request: MapRequest) -> None:
    """Print each module's role and the reason for it.

    Example: fno-telemetry map --input train.npz --output map.toml

    Of another network: fno-telemetry map --input train.npz --architecture hybrid
    """
    with keep_stdout_clean():
        prepared = prepare(request.source, read_input(request.source))
        with errors_in_one_line(prepared):
            model_map = prepared.map_model()
        if request.output is not None:
            ft.write_map(model_map, request.output)
    if request.printing.as_json:
        print_json(map_document(model_map))
    else:
        print_results(map_view(model_map, str(prepared.summary["architecture"])))
    if not request.printing.quiet:
        print_notes(f"warning: {warning}" for warning in model_map.warnings)
    if request.output is not None and not request.printing.quiet:
        print_notes([f"wrote {request.output}; --map reads it back"])
