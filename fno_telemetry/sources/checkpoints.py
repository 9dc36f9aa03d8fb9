"""Checkpoints: what is in the file, at which step it was written, and which set of weights is taken."""

import argparse
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from types import MappingProxyType

from torch import Tensor

from fno_telemetry.errors import CheckpointError
from fno_telemetry.records import StepKind
from fno_telemetry.sources.checksums import NOT_STORED
from fno_telemetry.sources.steps import find_step
from fno_telemetry.sources.unpickling import describe_closed
from fno_telemetry.sources.weight_files.containers import Contents, read_contents
from fno_telemetry.sources.weight_files.locations import compute_digest, find_location
from fno_telemetry.sources.weight_sets import DEEPEST, WeightSet, choose_set, find_sets


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One checkpoint, read: the set of weights that is taken, the others, and what it says of itself."""

    path: str
    sha256: str
    taken: WeightSet
    others: tuple[WeightSet, ...] = ()
    is_chosen: bool = False  # whether the set that is taken was asked for by name
    hyper_parameters: Mapping[str, object] = field(default_factory=dict)
    step: int | None = None
    step_kind: StepKind | None = None
    checksums: str = NOT_STORED  # whether the checksums of the files say that the weights are undamaged
    closed: str = ""  # what to do about weights in objects that are only read with trust

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """The tensors of the set that is taken, by their names in it."""
        return self.taken.tensors

    @property
    def sets(self) -> tuple[WeightSet, ...]:
        """The set that is taken, then the others."""
        return (self.taken, *self.others)


def read_checkpoint(path: str | Path, *, trust: bool = False, weights: str | None = None) -> Checkpoint:
    """Read the weights, settings and step of a checkpoint, a file or a folder; tensors stay on the CPU.

    `weights` names the set to take where there are several, such as "ema"; without it the network's own is
    taken, and the others stay at hand. Nothing in the file is run unless `trust` is given. CheckpointError,
    one line, when it cannot be used.
    """
    name = str(path)
    location = find_location(name)
    contents = read_contents(location, trust=trust)
    found = find_sets(contents.held, name)
    closed = describe_closed(contents.held)
    if not found.first.tensors and not found.others:
        reason = closed or f"{_instead(contents.held)}. Give a checkpoint that holds a network's weights."
        raise CheckpointError(f"{name}: {reason}")
    taken, others = (found.first, found.others) if weights is None else choose_set(found, weights, name)
    settings = _plain(_settings(contents))
    # Links are not followed, since what they lead to is often named by a digest.
    given = Path(name) if Path(name).name.strip(".") else Path(name).resolve()
    step, kind = find_step((*found.entries, contents.training_state), given.name)
    return Checkpoint(
        path=name,
        sha256=compute_digest(contents.files),
        taken=taken,
        others=others,
        is_chosen=weights is not None,
        hyper_parameters=MappingProxyType(settings if isinstance(settings, dict) else {}),
        step=step,
        step_kind=kind,
        checksums=contents.checksums,
        closed=closed,
    )


def _settings(contents: Contents) -> object:
    held = contents.held if isinstance(contents.held, Mapping) else {}
    entries = (held, contents.training_state)
    return next((one[key] for one in entries for key in ("hyper_parameters", "hparams") if key in one), None)


def _instead(content: object) -> str:
    """Say what a file holds that holds no weights."""
    if not isinstance(content, Mapping):
        return f"it holds a {type(content).__name__}, not a state dict"
    if "param_groups" in content or any("optim" in str(key).lower() for key in content):
        return "it holds an optimizer's state and no network's"
    names = [str(name) for name in content]
    first = ", ".join(names[:3]) + (f", … ({len(names)} in all)" if len(names) > 3 else "")
    return "there are no tensors in it" + (f", only {first}" if first else "")


def _plain(value: object, depth: int = DEEPEST) -> object:
    """Return settings as dicts all through, whatever held them."""
    if isinstance(value, argparse.Namespace) or (
        dataclasses.is_dataclass(value) and not isinstance(value, type) and hasattr(value, "__dict__")
    ):
        value = vars(value)
    if isinstance(value, Mapping) and depth:
        return {str(key): _plain(item, depth - 1) for key, item in value.items()}
    return str(value) if isinstance(value, PurePath) else value
