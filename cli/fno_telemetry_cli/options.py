"""Options that several commands share, and what they say about the model and its input."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

import fno_telemetry as ft
from fno_telemetry import plugins

_INPUT, _MODEL, MEASURED = "Input", "Model", "Measured"


def names_of(kind: str) -> Callable[[str], list[str]]:
    """Return what completes the names of this kind of plug-in, also at the end of a comma list."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [before + comma + name for name in plugins.names(kind) if name.startswith(last)]

    return complete


Input = Annotated[
    Path | None,
    typer.Option("--input", metavar="FILE", help="A .npz, .npy or .pt file.", rich_help_panel=_INPUT),
]
Key = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Array inside the NPZ. Default: diffraction, else diff3d.",
        rich_help_panel=_INPUT,
    ),
]
Axes = Annotated[
    str | None,
    typer.Option(
        metavar="ORDER",
        help="Order of the axes: NHW, NHWC, NCHW, HWN, NCL, NCDHW, … Default: NHW or NHWC.",
        rich_help_panel=_INPUT,
    ),
]
Batches = Annotated[
    str | None,
    typer.Option(
        metavar="PKG.MOD:FUNCTION",
        help="Instead of --input: yields batches; a tuple is positional arguments, a dict keywords.",
        rich_help_panel=_INPUT,
    ),
]
BatchSize = Annotated[
    int | None, typer.Option(metavar="N", help="Samples per forward. Default: 1.", rich_help_panel=_INPUT)
]
MaxSamples = Annotated[
    int,
    typer.Option(metavar="N", help="The first N samples are run, all of them.", rich_help_panel=_INPUT),
]
ArchitectureName = Annotated[
    str | None,
    typer.Option(
        "--architecture",
        metavar="NAME",
        help="fno, hybrid, stable_hybrid, fno_vanilla, … Default: the checkpoint's, else fno.",
        rich_help_panel=_MODEL,
        autocompletion=names_of("architectures"),
    ),
]
ModelFactory = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="PKG.MOD:FACTORY",
        help="Any nn.Module or callable returning one, instead of --architecture.",
        rich_help_panel=_MODEL,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Constructor argument, repeatable; the value is a TOML literal.",
        rich_help_panel=_MODEL,
    ),
]
CheckpointPath = Annotated[
    list[Path] | None,
    typer.Option("--checkpoint", metavar="FILE", help="File with the weights.", rich_help_panel=_MODEL),
]
CheckpointPaths = Annotated[
    list[Path] | None,
    typer.Option(
        "--checkpoint",
        metavar="FILE|'GLOB'",
        help="File with the weights; repeatable, a quoted glob works: one report each.",
        rich_help_panel=_MODEL,
    ),
]
TrustCheckpoint = Annotated[
    bool,
    typer.Option(
        "--trust-checkpoint",
        metavar="",
        help="Unpickle the checkpoint, which can run any code in it.",
        rich_help_panel=_MODEL,
    ),
]
AllowMissing = Annotated[
    bool,
    typer.Option(
        "--allow-missing",
        metavar="",
        help="Accept that parameters are missing in the checkpoint.",
        rich_help_panel=_MODEL,
    ),
]
Device = Annotated[
    str, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, mps, …", rich_help_panel=_MODEL)
]
Seed = Annotated[
    int,
    typer.Option(metavar="N", help="Draws the weights when there is no checkpoint.", rich_help_panel=_MODEL),
]
MapFile = Annotated[
    Path | None,
    typer.Option(
        "--map", metavar="FILE", help="TOML file with roles and axes given by hand.", rich_help_panel=_MODEL
    ),
]
LossFunction = Annotated[
    str | None,
    typer.Option(
        "--loss",
        metavar="PKG.MOD:FUNCTION",
        help="(output, batch) -> scalar: its gradients are captured too.",
        rich_help_panel=MEASURED,
    ),
]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        metavar="GLOB",
        help="Measure what matches only; * crosses dots. Repeatable.",
        rich_help_panel=MEASURED,
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(metavar="GLOB", help="Do not measure what matches. Repeatable.", rich_help_panel=MEASURED),
]
Diagnose = Annotated[
    bool,
    typer.Option(
        "--diagnose",
        metavar="",
        help="Say what is wrong, and write it into the report and every sink.",
        rich_help_panel=MEASURED,
    ),
]
FailOn = Annotated[
    str | None,
    typer.Option(
        metavar="LEVEL",
        help="Diagnose, and exit 1 from here on: note, warning, error or never.",
        rich_help_panel=MEASURED,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON document instead.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", metavar="", help="No progress, no hints: results and errors only.")
]


@dataclass(frozen=True)
class Source:
    """What the user said about the model and its input."""

    input: Path | None
    key: str | None
    axes: str | None
    batches: str | None
    batch_size: int | None
    max_samples: int
    architecture: str | None
    model: str | None
    settings: tuple[str, ...]
    checkpoints: tuple[Path, ...]
    trust_checkpoint: bool
    allow_missing: bool
    device: str
    seed: int
    map_file: Path | None

    loss: str | None = None
    checkpoint_name: str | None = None  # where it is not the file's name that tells it from the others

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Source":
        """Take the fields out of a command's arguments, which go by the same names."""
        names = set(cls.__dataclass_fields__) & set(given)
        settings, checkpoints = tuple(given["settings"] or ()), tuple(given["checkpoint"] or ())
        return cls(
            **{name: given[name] for name in names} | {"settings": settings, "checkpoints": checkpoints}
        )

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint, where there is one; OptionError where there are several."""
        if len(self.checkpoints) > 1:
            raise ft.OptionError(
                f"--checkpoint is given {len(self.checkpoints)} times, and one is taken here"
            )
        return self.checkpoints[0] if self.checkpoints else None

    def at(self, checkpoint: Path, name: str) -> "Source":
        """Return the same with one checkpoint, which reports call `name`."""
        return replace(self, checkpoints=(checkpoint,), checkpoint_name=name)


SOURCE = frozenset(Source.__dataclass_fields__)
"""The arguments of commands that say something about the model or its input."""
