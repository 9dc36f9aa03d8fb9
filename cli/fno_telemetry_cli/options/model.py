"""Options about the model and its input, and what a user said by them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

import fno_telemetry as ft
from fno_telemetry_cli.options.completion import complete_names

_INPUT, MODEL = "Input", "Model"


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """What a model is run on."""

    input: Annotated[
        Path | None,
        typer.Option(
            "--input", metavar="FILE", help="A .npz, .npy or .pt file with samples.", rich_help_panel=_INPUT
        ),
    ] = None
    key: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of the array in the file. Default: diffraction or, if there is none, diff3d.",
            rich_help_panel=_INPUT,
        ),
    ] = None
    axes: Annotated[
        str | None,
        typer.Option(
            metavar="ORDER",
            help="Order of the axes, one letter each: NHW, NHWC, NCHW, HWN, NCL, NCDHW, … "
            "Default: NHW for three axes, NHWC for four; required for other arrays.",
            rich_help_panel=_INPUT,
        ),
    ] = None
    batches: Annotated[
        str | None,
        typer.Option(
            metavar="PKG.MOD:FUNCTION",
            help="Instead of --input: a function that yields batches. A tuple holds the positional arguments "
            "of the model, a dict the keyword arguments.",
            rich_help_panel=_INPUT,
        ),
    ] = None
    inputs: Annotated[
        str | None,
        typer.Option(
            metavar="PARTS",
            help="Parts of a batch that go into the model: positions (0 or 0,2) or keys (x or x,mask). With "
            "--input: arrays of the file. Default: all parts but the target.",
            rich_help_panel=_INPUT,
        ),
    ] = None
    target: Annotated[
        str | None,
        typer.Option(
            metavar="PART",
            help="Part of a batch, or array of the --input file, that the output is compared with. For a "
            "loader of (x, y): --inputs 0 --target 1. With --prediction also several.",
            rich_help_panel=_INPUT,
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        typer.Option(metavar="N", help="Samples per forward pass. Default: 1.", rich_help_panel=_INPUT),
    ] = None
    max_samples: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Run the model on the first N samples. Default: 8.",
            show_default=False,
            rich_help_panel=_INPUT,
        ),
    ] = 8


@dataclass(frozen=True, kw_only=True)
class PredictionOptions:
    """How an output and a target become alike."""

    prediction: Annotated[
        str | None,
        typer.Option(
            metavar="PKG.MOD:FUNCTION",
            help="Function (output, batch) -> (prediction, target), where the output and the target are not "
            "compared as they are.",
            rich_help_panel=_INPUT,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Which network is run."""

    architecture: Annotated[
        str | None,
        typer.Option(
            "--architecture",
            metavar="NAME",
            help="fno, hybrid, stable_hybrid, fno_vanilla, … Default: the one recognised in the checkpoint; "
            "without a checkpoint, fno.",
            rich_help_panel=MODEL,
            autocompletion=complete_names("architectures"),
        ),
    ] = None
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="PKG.MOD:FACTORY",
            help="Instead of --architecture: an nn.Module, or a class or function that makes one.",
            rich_help_panel=MODEL,
        ),
    ] = None
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Argument for building the network of --architecture or --model, such as modes=16; VALUE is "
            "a TOML literal. Repeatable.",
            rich_help_panel=MODEL,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class WeightOptions:
    """How the network gets its weights, and where it runs."""

    trust_checkpoint: Annotated[
        bool,
        typer.Option(
            "--trust-checkpoint",
            metavar="",
            help="Unpickle the checkpoint. This can run any code that it contains.",
            rich_help_panel=MODEL,
        ),
    ] = False
    weight_set: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="NAME",
            help="Which set of weights to take from a checkpoint that holds several, such as ema. Default: "
            "the network's own.",
            rich_help_panel=MODEL,
        ),
    ] = None
    allow_missing: Annotated[
        bool,
        typer.Option(
            "--allow-missing",
            metavar="",
            help="Accept parameters that are missing from the checkpoint.",
            rich_help_panel=MODEL,
        ),
    ] = False
    device: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="cpu, cuda, cuda:1, mps, … Default: cpu.",
            show_default=False,
            rich_help_panel=MODEL,
        ),
    ] = "cpu"
    seed: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Random seed for the weights when there is no checkpoint. Default: 0.",
            show_default=False,
            rich_help_panel=MODEL,
        ),
    ] = 0
    map_file: Annotated[
        Path | None,
        typer.Option(
            "--map",
            metavar="FILE",
            help="TOML file with roles and axes of modules; fno-telemetry map --output writes one.",
            rich_help_panel=MODEL,
        ),
    ] = None


def split_parts(option: str, text: str | None) -> list[str]:
    """Return the parts that an option names, separated by commas; OptionError where one is empty."""
    parts = [] if text is None else [part.strip() for part in text.split(",")]
    if not all(parts):
        raise ft.OptionError(f"{option} {text!r}: expected positions or keys of a batch, such as 0 or x,mask")
    return parts


@dataclass(frozen=True)
class Source:
    """What the user said about the model and its input."""

    data: InputOptions
    network: NetworkOptions
    weights: WeightOptions
    checkpoints: tuple[Path, ...] = ()
    loss: str | None = None
    prediction: str | None = None
    checkpoint_name: str | None = None  # where the file's name does not distinguish it from the others
    counts: bool = True  # whether the checkpoint's step is its place in the series

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint, if there is one; OptionError if there are several."""
        if len(self.checkpoints) > 1:
            raise ft.OptionError(
                f"--checkpoint is given {len(self.checkpoints)} times; this command takes one"
            )
        return self.checkpoints[0] if self.checkpoints else None

    def check(self) -> None:
        """Raise OptionError where options exclude each other, or have values that cannot be meant."""
        data, network, weights = self.data, self.network, self.weights
        if (data.input is None) == (data.batches is None):
            said = "; --inputs names parts of the batches, --input a file"
            said = said if data.inputs is not None or data.batches is not None else ""
            raise ft.OptionError(f"give either --input FILE or --batches package.module:function{said}")
        if data.key is not None and data.inputs is not None:
            raise ft.OptionError("--key and --inputs both name arrays of --input; give one of them")
        if network.model is not None and network.architecture is not None:
            raise ft.OptionError("give --architecture or --model, not both")
        for option, value in (("--batch-size", data.batch_size), ("--max-samples", data.max_samples)):
            if value is not None and value < 1:
                raise ft.OptionError(f"{option} {value}: at least 1 was expected")
        if data.batches is not None and data.batch_size is not None:
            raise ft.OptionError(
                "--batch-size is for --input; the function of --batches makes its own batches"
            )
        if data.batches is not None and (data.key or data.axes):
            raise ft.OptionError("--key and --axes are for --input; leave them out with --batches")
        if not self.checkpoints and (weights.trust_checkpoint or weights.allow_missing):
            raise ft.OptionError("--trust-checkpoint and --allow-missing need --checkpoint FILE")
        if not self.checkpoints and weights.weight_set is not None:
            raise ft.OptionError(f"--weights {weights.weight_set} needs --checkpoint FILE")
        if not 0 <= weights.seed < 2**63:
            raise ft.OptionError(f"--seed {weights.seed}: a number from 0 to 2^63 - 1 was expected")

    def at(self, checkpoint: Path, name: str, *, counts: bool = True) -> "Source":
        """Return the same with one checkpoint, which reports call `name`; its step only if that `counts`."""
        return replace(self, checkpoints=(checkpoint,), checkpoint_name=name, counts=counts)
