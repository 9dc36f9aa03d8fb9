"""What else in a checkpoint fits a network, next to the weights that are loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fno_telemetry.errors import CheckpointError
from fno_telemetry.sources.checkpoints import Checkpoint
from fno_telemetry.sources.subtrees import Subtree, hold_same_weights, list_subtrees, score_subtree

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Rivals:
    """Names of tensors that hold the loaded weights once more, and what a user should know of the others."""

    copies: frozenset[str] = frozenset()
    sets: tuple[str, ...] = ()  # other sets of weights for this network, by their names
    warnings: tuple[str, ...] = ()


def compare_rivals(checkpoint: Checkpoint, fits: Sequence[Subtree], shapes: Shapes) -> Rivals:
    """Compare what fits a network equally well; CheckpointError when it cannot be told which is meant."""
    if not fits:
        return Rivals()
    chosen = fits[0]
    copies: set[str] = set()
    warnings = []
    for rival in fits[1:]:
        if _is_other_set(rival, chosen):
            continue
        if hold_same_weights(chosen, rival, shapes.keys()):
            copies.update(rival.names[brief] for brief in shapes if brief in rival.names)
        elif rival.rank == chosen.rank:
            raise CheckpointError(
                f"{checkpoint.path}: {chosen.prefix!r} and {rival.prefix!r} fit this network equally well "
                f"and hold different weights. Choose one: `weights={chosen.prefix!r}`."
            )
        else:
            warnings.append(
                f"{chosen.prefix!r} and {rival.prefix!r} hold different weights for this network; "
                f"those of {chosen.prefix!r} were loaded."
            )
    sets = _name_sets(checkpoint, chosen, shapes)
    if sets and not checkpoint.is_chosen:
        warnings.insert(
            0,
            f"there are several sets of weights for this network: {chosen.title!r} was loaded, not "
            f"{', '.join(map(repr, sets))}. `weights={sets[0]!r}` chooses another.",
        )
    return Rivals(frozenset(copies), sets, tuple(warnings))


def _name_sets(checkpoint: Checkpoint, chosen: Subtree, shapes: Shapes) -> tuple[str, ...]:
    """Return the names of other sets that fit at least half as well; an average may hold no buffers."""
    enough, _ = score_subtree(chosen, shapes)
    found: dict[str, bool] = {}
    for tree in (tree for one in checkpoint.sets for tree in list_subtrees(one)):
        fitting, _ = score_subtree(tree, shapes)
        if tree.title is None or not _is_other_set(tree, chosen) or not fitting or 2 * fitting < enough:
            continue
        found[tree.title] = found.get(tree.title, False) or not hold_same_weights(chosen, tree, shapes.keys())
    return tuple(title for title, differs in found.items() if differs)


def _is_other_set(tree: Subtree, chosen: Subtree) -> bool:
    """Return whether a subtree is of another set of weights; what is inside the chosen one is not."""
    if tree.source is not chosen.source and tree.source.name != chosen.source.name:
        return True
    inside = not chosen.prefix or f"{tree.prefix}.".startswith(f"{chosen.prefix}.")
    return not inside and None not in (tree.part, chosen.part) and tree.part != chosen.part
