"""Checkpoints: what is in the file, at which step it was written, and how its weights get into a network."""

import argparse
import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from types import MappingProxyType

import torch
from torch import Tensor, nn

from fno_telemetry.errors import CheckpointError
from fno_telemetry.records import StepKind
from fno_telemetry.sources.checksums import NOT_STORED, describe_checksums
from fno_telemetry.sources.unpickling import describe_closed, read_torch_file
from fno_telemetry.tracing.canonical_paths import SOLE_CHILDREN, canonical_names, without_wrappers

CONTAINERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training programs put the weights, most telling first."""

NOT_WEIGHTS = re.compile(
    r"(.*\.)?_metadata|hyper_parameters|hparams|callbacks|loops|.*(optim|sched|scaler).*", re.I
)
"""Keys of mappings that are never a network's weights, though they may hold tensors."""

DEEPEST = 8  # mappings inside mappings; a pickled mapping may hold itself


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One checkpoint file, read: its tensors by their names in the file, and what it says of itself."""

    path: str
    sha256: str
    tensors: Mapping[str, Tensor]
    hyper_parameters: Mapping[str, object] = field(default_factory=dict)
    step: int | None = None
    step_kind: StepKind | None = None
    checksums: str = NOT_STORED  # whether the file's checksums say that it is undamaged
    closed: str = ""  # what to do about weights in objects that are only read with trust


@dataclass(frozen=True, eq=False)
class Subtree:
    """The tensors below one dotted prefix of a checkpoint, by their canonical names relative to it."""

    prefix: str
    names: Mapping[str, str]  # to their names in the file

    @property
    def rank(self) -> int:
        """How likely a network is found here: 0 below a generator, 1 below known names, 2 below any other."""
        parts = self.prefix.split(".") if self.prefix else []
        if parts[-1:] == ["generator"]:
            return 0
        return 1 if SOLE_CHILDREN.issuperset(parts) else 2


@dataclass(frozen=True)
class WeightMatch:
    """How weights met a network: the network's names loaded and missing, the file's names left over."""

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def read_checkpoint(path: str | Path, *, trust: bool = False) -> Checkpoint:
    """Read the weights, settings and step of a checkpoint; tensors stay on the CPU.

    Nothing in the file is run unless `trust` is given. CheckpointError, one line, when it cannot be used.
    """
    name = str(path)
    content = read_torch_file(name, trust=trust)
    tensors = dict(_weights(content))
    closed = describe_closed(content)
    if not tensors:
        reason = closed or f"{_instead(content)}. Give a checkpoint that holds a network's weights."
        raise CheckpointError(f"{name}: {reason}")
    entries = content if isinstance(content, Mapping) else {}
    settings = _plain(entries.get("hyper_parameters", entries.get("hparams")))
    step, kind = _step(entries, Path(name).name)
    with Path(name).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Checkpoint(
        path=name,
        sha256=digest,
        tensors=MappingProxyType(tensors),
        hyper_parameters=MappingProxyType(settings if isinstance(settings, dict) else {}),
        step=step,
        step_kind=kind,
        checksums=describe_checksums(name),
        closed=closed,
    )


def subtrees(checkpoint: Checkpoint) -> list[Subtree]:
    """Return every subtree that could be a network, the likeliest first; wrapper names count for nothing."""
    short = {name: without_wrappers(name) for name in checkpoint.tensors}
    uses = Counter(short.values())
    found: dict[str, dict[str, str]] = {}
    for name, brief in short.items():
        parts = (brief if uses[brief] == 1 else name).split(".")
        for cut in range(len(parts)):
            found.setdefault(".".join(parts[:cut]), {})[".".join(parts[cut:])] = name
    trees = [Subtree(prefix, MappingProxyType(names)) for prefix, names in found.items()]
    return sorted(trees, key=lambda tree: (tree.rank, tree.prefix.count(".")))


def find_weights(checkpoint: Checkpoint, shapes: Mapping[str, tuple[int, ...]]) -> list[Subtree]:
    """Return the subtrees that hold most of these parameters, equally many each, the likeliest first.

    `shapes` has canonical names. Parameters whose shape fits count before those whose name alone does.
    """
    scores = []
    for tree in subtrees(checkpoint):
        common = tree.names.keys() & shapes.keys()
        fitting = sum(tuple(checkpoint.tensors[tree.names[name]].shape) == shapes[name] for name in common)
        scores.append(((fitting, len(common)), tree))
    best = max((score for score, _ in scores), default=(0, 0))
    return [tree for score, tree in scores if score == best and best[1]]


def load_weights(model: nn.Module, checkpoint: Checkpoint, *, allow_missing: bool = False) -> WeightMatch:
    """Copy a checkpoint's weights into `model`, all of them or, on any error, none.

    Of several subtrees that fit, `generator` is taken. CheckpointError when nothing matches, a shape differs,
    a parameter is missing (unless `allow_missing`), or equally likely subtrees hold different weights.
    """
    own = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    if any(nn.parameter.is_lazy(value) for value in own.values()):
        raise CheckpointError(
            f"{checkpoint.path}: the network makes its parameters at its first forward. Run it once first."
        )
    full = {brief: name for name, brief in canonical_names(own).items()}
    fits = find_weights(checkpoint, {brief: tuple(own[name].shape) for brief, name in full.items()})
    if not fits:
        raise CheckpointError(
            f"{checkpoint.path}: nothing in it belongs to this network: it has "
            f"{_some(checkpoint.tensors)}, the network {_some(own)}. "
            f"Give the right `architecture` or `model`.{_also(checkpoint.closed)}"
        )
    chosen, *rivals = fits
    source = {name: chosen.names[brief] for brief, name in full.items() if brief in chosen.names}
    missing = tuple(name for name in own if name not in source and not name.endswith("num_batches_tracked"))
    if missing and not allow_missing:
        raise CheckpointError(
            f"{checkpoint.path}: {len(missing)} of the network's {len(own)} parameters are missing from it: "
            f"{_some(missing)}. Give the network it was made for, or accept initial values by "
            f"`allow_missing=True`.{_also(checkpoint.closed)}"
        )
    _refuse_other_shapes(own, source, checkpoint)
    used = set(source.values())
    warnings = []
    for rival in rivals:
        if _same_weights(chosen, rival, full, checkpoint):
            used.update(rival.names[brief] for brief in full if brief in rival.names)
        elif rival.rank == chosen.rank:
            raise CheckpointError(
                f"{checkpoint.path}: {chosen.prefix!r} and {rival.prefix!r} fit this network equally well "
                "and hold different weights. Save the state_dict() of the one that is meant."
            )
        else:
            warnings.append(
                f"{chosen.prefix!r} and {rival.prefix!r} hold different weights for this network; "
                f"those of {chosen.prefix!r} were loaded."
            )
    _copy(model, own, {name: checkpoint.tensors[there] for name, there in source.items()}, checkpoint.path)
    if missing:
        warnings.append(f"not in the checkpoint, so left at their initial values: {_some(missing)}.")
    unexpected = tuple(name for name in checkpoint.tensors if name not in used)
    inside = set(chosen.names.values())
    if extra := [name for name in unexpected if name in inside or chosen.rank == 2]:
        warnings.append(f"in the checkpoint, but without a place in the network: {_some(extra)}.")
    return WeightMatch(tuple(source), missing, unexpected, tuple(warnings))


def _same_weights(one: Subtree, other: Subtree, names: Mapping[str, str], checkpoint: Checkpoint) -> bool:
    """Return whether two subtrees hold the same of these names, with the same values."""
    common = one.names.keys() & names.keys()
    if common != other.names.keys() & names.keys():
        return False
    pairs = [(checkpoint.tensors[one.names[name]], checkpoint.tensors[other.names[name]]) for name in common]
    # Tensors in one place are the same even where they hold NaN.
    alike = all(a.dtype == b.dtype and a.layout == b.layout for a, b in pairs)
    return alike and all(a.is_set_to(b) or torch.equal(a, b) for a, b in pairs)


def _refuse_other_shapes(
    own: Mapping[str, Tensor], source: Mapping[str, str], checkpoint: Checkpoint
) -> None:
    """Raise CheckpointError when a tensor cannot go where its name says."""
    wrong = []
    for name, there in source.items():
        value = checkpoint.tensors[there]
        if value.shape != own[name].shape:
            wrong.append(f"{name} has shape {tuple(value.shape)} in it and {tuple(own[name].shape)}")
        elif value.layout is not torch.strided or value.is_meta:
            wrong.append(f"{name} is not dense in it, but is")
        elif value.is_complex() and not own[name].is_complex():
            wrong.append(f"{name} is {value.dtype} in it and {own[name].dtype}")
    if wrong:
        rest = f" ({len(wrong) - 1} more parameters differ)" if len(wrong) > 1 else ""
        raise CheckpointError(
            f"{checkpoint.path}: {wrong[0]} in the network{rest}. Build the network as it was trained, for "
            "example by `settings`, or give its own checkpoint."
        )


def _copy(model: nn.Module, own: Mapping[str, Tensor], values: dict[str, Tensor], path: str) -> None:
    """Load `values`; when that fails halfway, put back what was there and raise CheckpointError."""
    before = {name: value.detach().clone() for name, value in own.items()}
    try:
        # Through the module, since some modules translate their entries on the way in.
        model.load_state_dict(values, strict=False)
    except Exception as error:  # a module's own loading code may raise anything
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(before[name])
        raise CheckpointError(
            f"{path}: the network does not accept these weights ({type(error).__name__}: {error}). "
            "Give the checkpoint of this network."
        ) from error


def _weights(content: object) -> Iterator[tuple[str, Tensor]]:
    """Yield the names and tensors of the network in what a file holds."""
    for _ in range(DEEPEST):
        if not isinstance(content, Mapping):
            break
        inside = [content[key] for key in CONTAINERS if key in content]
        wrapped = next((value for value in inside if any(_flat(value))), None)
        if wrapped is None or isinstance(wrapped, Tensor):
            break
        content = wrapped
    yield from _flat(content)


def _flat(content: object, prefix: str = "", depth: int = DEEPEST) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in nested mappings and modules by dotted names; an optimizer's are passed over."""
    if isinstance(content, nn.Module):
        content = content.state_dict()
    if not isinstance(content, Mapping) or "param_groups" in content or not depth:
        return
    for key, value in content.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", value.detach()
        elif isinstance(key, str) and not NOT_WEIGHTS.fullmatch(key):
            yield from _flat(value, f"{prefix}{key}.", depth - 1)


def _instead(content: object) -> str:
    """Say what a file holds that holds no weights."""
    if not isinstance(content, Mapping):
        return f"it holds a {type(content).__name__}, not a state dict"
    if "param_groups" in content or any("optim" in str(key).lower() for key in content):
        return "it holds an optimizer's state and no network's"
    return f"there are no tensors in it, only {_some(content)}"


def _also(advice: str) -> str:
    """Return one more sentence for a message, or nothing."""
    return f" Also, {advice}" if advice else ""


def _plain(value: object, depth: int = DEEPEST) -> object:
    """Return settings as dicts all through, whatever held them."""
    if isinstance(value, argparse.Namespace) or (
        dataclasses.is_dataclass(value) and not isinstance(value, type) and hasattr(value, "__dict__")
    ):
        value = vars(value)
    if isinstance(value, Mapping) and depth:
        return {str(key): _plain(item, depth - 1) for key, item in value.items()}
    return str(value) if isinstance(value, PurePath) else value


def _step(entries: Mapping[object, object], name: str) -> tuple[int | None, StepKind | None]:
    """Return the step and its kind: from the file's entries, else its name, else the epoch."""
    kinds: tuple[tuple[StepKind, str], ...] = (("step", "global_step"), ("epoch", "epoch"))
    for kind, key in kinds:
        value = entries.get(key)
        if isinstance(value, Tensor) and value.numel() == 1:
            value = value.item()
        if (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and value >= 0
            and value == value // 1
        ):
            return int(value), kind
        if written := re.findall(rf"(?<![A-Za-z0-9]){kind}[=_-]?([0-9]{{1,18}})(?![A-Za-z0-9])", name, re.I):
            return int(written[-1]), kind
    return None, None


def _some(names: Mapping[str, object] | tuple[str, ...] | list[str]) -> str:
    """Return the first few names for a message."""
    first = [str(name) for name in names]
    return ", ".join(first[:3]) + (f", … ({len(first)} in all)" if len(first) > 3 else "")
