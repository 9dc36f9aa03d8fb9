"""Where in a checkpoint a network may be: the tensors below each dotted prefix of each set of weights."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from fno_telemetry.sources.checkpoints import Checkpoint
from fno_telemetry.sources.weight_sets import WeightSet
from fno_telemetry.tracing.canonical_paths import SOLE_CHILDREN, without_wrappers

_AVERAGED = re.compile(r"(?<![a-z])(ema|swa|avg|averaged?|shadow)(?![a-z])|average", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Subtree:
    """The tensors below one dotted prefix of a set of weights, by their canonical names relative to it."""

    prefix: str
    names: Mapping[str, str]  # to their names in the set
    source: WeightSet

    @property
    def rank(self) -> int:
        """How likely a network is found here: 0 below a generator, 1 below known names, 2 below any other."""
        parts = self.prefix.split(".") if self.prefix else []
        if parts[-1:] == ["generator"]:
            return 0
        return 1 if SOLE_CHILDREN.issuperset(parts) else 2

    @property
    def part(self) -> str | None:
        """The mapping of the file that this subtree is in, where there are several next to each other."""
        inside = f"{self.prefix}."
        return next((part for part in self.source.parts if inside.startswith(f"{part}.")), None)

    @property
    def title(self) -> str | None:
        """The name by which `weights` takes this subtree instead of the others."""
        return self.part or self.source.name

    def tensor(self, name: str) -> Tensor:
        """Return the tensor of a canonical name."""
        return self.source.tensors[self.names[name]]


def subtrees(checkpoint: Checkpoint) -> list[Subtree]:
    """Return every subtree that could be a network, the likeliest first; wrapper names count for nothing.

    Those of the set that is taken come before those of the others, which are left out if it was asked for.
    """
    sets = checkpoint.sets[:1] if checkpoint.is_chosen else checkpoint.sets
    return [tree for one in sets for tree in list_subtrees(one)]


def find_weights(checkpoint: Checkpoint, shapes: Mapping[str, tuple[int, ...]]) -> list[Subtree]:
    """Return the subtrees that hold most of these parameters, equally many each, the likeliest first.

    `shapes` has canonical names. Parameters whose shape fits count before those whose name alone does.
    """
    scores = [(score_subtree(tree, shapes), tree) for tree in subtrees(checkpoint)]
    best = max((score for score, _ in scores), default=(0, 0))
    return [tree for score, tree in scores if score == best and best[1]]


def score_subtree(tree: Subtree, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int]:
    """Return how many of these parameters fit by shape, and how many are there by name."""
    common = tree.names.keys() & shapes.keys()
    return sum(tuple(tree.tensor(name).shape) == shapes[name] for name in common), len(common)


def hold_same_weights(one: Subtree, other: Subtree, names: Collection[str]) -> bool:
    """Return whether two subtrees hold the same of these names, with the same values."""
    common = one.names.keys() & names
    if common != other.names.keys() & names:
        return False
    pairs = [(one.tensor(name), other.tensor(name)) for name in common]
    # Tensors in one place are the same even where they hold NaN.
    alike = all(a.dtype == b.dtype and a.layout == b.layout for a, b in pairs)
    return alike and all(a.is_set_to(b) or torch.equal(a, b) for a, b in pairs)


def list_subtrees(source: WeightSet) -> list[Subtree]:
    """Return every subtree of one set that could be a network, the likeliest first."""
    found: dict[str, dict[str, str]] = {}
    for name, parts in _canonical_parts(source):
        for cut in range(len(parts)):
            found.setdefault(".".join(parts[:cut]), {})[".".join(parts[cut:])] = name
    trees = [Subtree(prefix, MappingProxyType(names), source) for prefix, names in found.items()]
    # An average comes after what it is the average of, whatever their order in the file.
    return sorted(
        trees,
        key=lambda tree: (
            tree.rank,
            bool(tree.part and _AVERAGED.search(tree.part)),
            tree.prefix.count("."),
        ),
    )


def _canonical_parts(source: WeightSet) -> Iterator[tuple[str, list[str]]]:
    """Yield each tensor's name, and the parts of it without wrappers where those are only its own."""
    short = {name: without_wrappers(name) for name in source.tensors}
    uses = Counter(short.values())
    for name, brief in short.items():
        yield name, (brief if uses[brief] == 1 else name).split(".")
