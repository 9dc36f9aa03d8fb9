"""How weights get into a network: matched by name, loaded by the network's own code, all of them or none."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fno_telemetry.errors import CheckpointError
from fno_telemetry.sources.checkpoints import Checkpoint
from fno_telemetry.sources.network_backup import NetworkBackup
from fno_telemetry.sources.rival_weights import Rivals, compare_rivals
from fno_telemetry.sources.subtrees import Subtree, find_weights, subtrees
from fno_telemetry.sources.weight_sets import EXTRA_STATE
from fno_telemetry.tracing.canonical_paths import canonical_names, without_wrappers

_MOST_TRIALS = 8  # subtrees that a network may try whose own code renames every entry


@dataclass(frozen=True)
class WeightMatch:
    """How weights met a network: the network's names loaded and missing, the file's names left over."""

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    weights: str | None = None  # the set that was loaded, where there are several for this network
    other_weights: tuple[str, ...] = ()  # and the sets that were not


@dataclass(frozen=True, eq=False)
class _Loaded:
    """What the network's own code made of a subtree: its names filled and missing, and names not taken."""

    tree: Subtree
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    left: frozenset[str]
    without_extra: tuple[str, ...]  # the network's names of extra states that are not in the subtree


def load_weights(model: nn.Module, checkpoint: Checkpoint, *, allow_missing: bool = False) -> WeightMatch:
    """Load a checkpoint's weights into `model`, all of them or, on any error, none.

    What the network's own `load_state_dict` takes is not missing: it may rename and reshape entries. Of
    several sets of weights that fit the first is taken; of several subtrees, `generator`. CheckpointError
    when nothing matches, a shape differs, a parameter is missing (unless `allow_missing`), or equally likely
    subtrees of one set hold different weights.
    """
    network = _Network.of(model, checkpoint.path)
    fits = find_weights(checkpoint, network.shapes)
    rivals = compare_rivals(checkpoint, fits, network.shapes)
    backup = NetworkBackup.of(model)
    try:
        loaded = _load_best(network, fits[:1] or subtrees(checkpoint)[:_MOST_TRIALS], backup)
        if loaded is None:
            raise CheckpointError(
                f"{checkpoint.path}: nothing in it belongs to this network: it has "
                f"{_some(checkpoint.tensors)}, the network {_some(network.own)}. "
                f"Give the right `architecture` or `model`.{_also(checkpoint.closed)}"
            )
        if loaded.missing and not allow_missing:
            count = f"{len(loaded.missing)} of the network's {len(network.own)} parameters"
            raise CheckpointError(
                f"{checkpoint.path}: {count} are missing from it: {_some(loaded.missing)}. Give the network "
                "it was made for, or accept initial values by `allow_missing=True`."
                f"{_also(checkpoint.closed)}"
            )
    except BaseException:
        backup.restore()
        raise
    return _describe(loaded, rivals)


def _describe(loaded: _Loaded, rivals: Rivals) -> WeightMatch:
    """Return what was loaded, and warnings about what was not."""
    warnings = list(rivals.warnings)
    if absent := (*loaded.missing, *loaded.without_extra):
        warnings.append(f"not in the checkpoint, so left at their initial values: {_some(absent)}.")
    tree = loaded.tree
    taken = (set(tree.names.values()) - loaded.left) | rivals.copies
    unexpected = tuple(name for name in tree.source.tensors if name not in taken)
    inside = set(tree.names.values())
    other_sets = tuple(f"{name}." for name in rivals.sets)
    extra = [name for name in unexpected if name in inside or tree.rank == 2]
    if extra := [name for name in extra if not name.startswith(other_sets)]:
        warnings.append(f"in the checkpoint, but without a place in the network: {_some(extra)}.")
    title = tree.title if rivals.sets else None
    return WeightMatch(loaded.matched, loaded.missing, unexpected, tuple(warnings), title, rivals.sets)


@dataclass(frozen=True, eq=False)
class _Network:
    """A network, its tensors by name, and its names by their canonical form."""

    model: nn.Module
    own: Mapping[str, Tensor]
    full: Mapping[str, str]
    extra: tuple[str, ...]  # names of what its modules keep next to tensors
    path: str  # of the checkpoint, for messages

    @classmethod
    def of(cls, model: nn.Module, path: str) -> "_Network":
        """Return a network; CheckpointError while it has parameters without a shape."""
        held = model.state_dict()
        own = {name: value for name, value in held.items() if isinstance(value, Tensor)}
        if any(nn.parameter.is_lazy(value) for value in own.values()):
            raise CheckpointError(
                f"{path}: the network makes its parameters at its first forward. Run it once first."
            )
        full = {brief: name for name, brief in canonical_names(own).items()}
        extra = tuple(name for name in held if name.endswith(EXTRA_STATE) and name not in own)
        return cls(model, own, full, extra, path)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor by its canonical name."""
        return {brief: tuple(self.own[name].shape) for brief, name in self.full.items()}

    def load(self, tree: Subtree) -> _Loaded | None:
        """Load a subtree by the network's own code; None if that takes nothing of it."""
        modules = _list_modules(self.full)
        given = {self.full.get(brief) or _rename(brief, modules): brief for brief in tree.names}
        entries = OrderedDict((name, tree.tensor(brief)) for name, brief in given.items())
        _refuse_other_kinds(self.own, entries, self.path)
        whole = OrderedDict[str, object](entries)
        root = _list_modules(tree.names)[""]
        for name, value in tree.source.extra_states.items():
            brief = without_wrappers(name.removeprefix(f"{root}."))
            if (full := _rename(brief, modules)) in self.extra:
                whole[full] = value
        _note_versions(whole, tree, modules)
        try:
            # Not strict, since all that is missing and left is to be named.
            result = self.model.load_state_dict(whole, strict=False)
        except Exception as error:  # a module's own loading code may raise anything
            _refuse_other_shapes(self.own, entries, self.path)
            reason = " ".join(str(error).split())
            raise CheckpointError(
                f"{self.path}: the network does not accept these weights ({type(error).__name__}: {reason}). "
                "Give the checkpoint of this network."
            ) from error
        # A module's own code may return nothing.
        absent = set(getattr(result, "missing_keys", self.own.keys() - entries.keys()))
        left = getattr(result, "unexpected_keys", entries.keys() - self.own.keys())
        matched = [name for name in self.own if name not in absent]
        if not matched or len(left) >= len(entries):
            return None
        shared = dict(self.model.named_parameters(remove_duplicate=False))
        filled = {id(shared[name]) for name in matched if name in shared}
        missing = [
            name
            for name in self.own
            if name in absent
            and not name.endswith("num_batches_tracked")
            and id(shared.get(name)) not in filled
        ]
        names = frozenset(tree.names[given[name]] for name in left if name in given)
        without_extra = tuple(name for name in self.extra if name not in whole)
        return _Loaded(tree, tuple(matched), tuple(missing), names, without_extra)


def _load_best(network: _Network, trees: Sequence[Subtree], backup: NetworkBackup) -> _Loaded | None:
    """Load the first subtree with which nothing is missing, else the one with which least is."""
    best: _Loaded | None = None
    failure: CheckpointError | None = None
    for tree in trees:
        try:
            loaded = network.load(tree)
        except CheckpointError as error:
            failure, loaded = failure or error, None
        if loaded is not None and (len(trees) == 1 or not loaded.missing):
            return loaded
        backup.restore()
        if loaded is not None and (best is None or len(loaded.missing) < len(best.missing)):
            best = loaded
    if best is None and failure is not None:
        raise failure
    return best and network.load(best.tree)


def _list_modules(names: Mapping[str, str]) -> dict[str, str]:
    """Return the full path of each module that has tensors below it, by its canonical path."""
    found: dict[str, str] = {}
    for brief, name in names.items():
        short, full = brief.split("."), name.split(".")
        while short:
            while full[-1] != short[-1]:  # the name of a wrapper
                full.pop()
            short.pop()
            full.pop()
            found.setdefault(".".join(short), ".".join(full))
    return found


def _rename(brief: str, modules: Mapping[str, str]) -> str:
    """Return the full name of a tensor that the network does not have, by the modules around it."""
    module, _, leaf = brief.rpartition(".")
    while module and module not in modules:
        module, _, last = module.rpartition(".")
        leaf = f"{last}.{leaf}"
    root = modules.get(module, "")
    return f"{root}.{leaf}" if root else leaf


def _note_versions(entries: OrderedDict[str, object], tree: Subtree, modules: Mapping[str, str]) -> None:
    """Attach the versions of the modules, without which their code takes the weights for old ones."""
    noted = {
        modules.get(brief, brief): tree.source.versions[there]
        for brief, there in _list_modules(tree.names).items()
        if there in tree.source.versions
    }
    if noted:
        entries._metadata = noted  # type: ignore[attr-defined]


def _refuse_other_kinds(own: Mapping[str, Tensor], entries: Mapping[str, Tensor], path: str) -> None:
    """Raise CheckpointError for tensors that would be loaded as something else."""
    wrong = []
    for name, value in entries.items():
        if name not in own:
            continue
        if value.layout is not torch.strided or value.is_meta:
            wrong.append(f"{name} is not dense in it, but is")
        elif value.is_complex() and not own[name].is_complex() and value.shape == own[name].shape:
            wrong.append(f"{name} is {value.dtype} in it and {own[name].dtype}")
    _refuse(wrong, path)


def _refuse_other_shapes(own: Mapping[str, Tensor], entries: Mapping[str, Tensor], path: str) -> None:
    """Raise CheckpointError for tensors that do not fit where their names say."""
    _refuse(
        [
            f"{name} has shape {tuple(value.shape)} in it and {tuple(own[name].shape)}"
            for name, value in entries.items()
            if name in own and value.shape != own[name].shape
        ],
        path,
    )


def _refuse(wrong: list[str], path: str) -> None:
    if wrong:
        rest = f" ({len(wrong) - 1} more parameters differ)" if len(wrong) > 1 else ""
        raise CheckpointError(
            f"{path}: {wrong[0]} in the network{rest}. Build the network as it was trained, for "
            "example by `settings`, or give its own checkpoint."
        )


def _also(advice: str) -> str:
    """Return one more sentence for a message, or nothing."""
    return f" Also, {advice}" if advice else ""


def _some(names: Mapping[str, object] | tuple[str, ...] | list[str]) -> str:
    """Return the first few names for a message."""
    first = [str(name) for name in names]
    return ", ".join(first[:3]) + (f", … ({len(first)} in all)" if len(first) > 3 else "")
