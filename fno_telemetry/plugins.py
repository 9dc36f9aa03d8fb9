"""Names to objects: a table of what is built in, then the entry points of installed packages.

Nothing is imported before it is asked for.
"""

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fno_telemetry.errors import PluginNotFound
from fno_telemetry.wording import hint_at_names

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints

SINKS = {
    "json": "fno_telemetry.sinks.json_file:JsonFile",
    "history": "fno_telemetry.sinks.history_file:HistoryFile",
    "tensorboard": "fno_telemetry.sinks.tensorboard.sink:TensorBoard",
    "wandb": "fno_telemetry.sinks.wandb.sink:WandbRun",
}
STATISTICS = {
    "values": "fno_telemetry.statistics.values:Values",
    "channels": "fno_telemetry.statistics.channels:Channels",
    "samples": "fno_telemetry.statistics.samples:Samples",
    "zero_samples": "fno_telemetry.statistics.zero_samples:ZeroSamples",
    "effective_rank": "fno_telemetry.statistics.effective_rank:EffectiveRank",
    "spectrum": "fno_telemetry.statistics.spectrum:Spectrum",
    "truncation": "fno_telemetry.statistics.truncation:Truncation",
    "weight_norm": "fno_telemetry.statistics.weights:WeightNorm",
    "modes": "fno_telemetry.statistics.weights:Modes",
    "branches": "fno_telemetry.statistics.branches:Branches",
    "updates": "fno_telemetry.statistics.branches:Updates",
    "gains": "fno_telemetry.statistics.branches:Gains",
    "inputs": "fno_telemetry.statistics.branches:Inputs",
    "output_gradients": "fno_telemetry.statistics.gradients:OutputGradientSize",
    "parameter_gradients": "fno_telemetry.statistics.gradients:ParameterGradientNorms",
    "branch_gradients": "fno_telemetry.statistics.gradients:BranchGradientRatio",
    "accuracy": "fno_telemetry.statistics.accuracy:Accuracy",
    "edges": "fno_telemetry.statistics.edges:Edges",
    "field_order": "fno_telemetry.statistics.field_order:FieldOrder",
    "missing_bands": "fno_telemetry.statistics.missing_bands:MissingBands",
}
ARCHITECTURES = {
    "fno": "fno_telemetry.architectures.fno:FNO",
    "hybrid": "fno_telemetry.architectures.hybrid:HYBRID",
    "stable_hybrid": "fno_telemetry.architectures.stable_hybrid:STABLE_HYBRID",
    "fno_vanilla": "fno_telemetry.architectures.fno_vanilla:FNO_VANILLA",
}
_RULES = (
    "inputs.bad_input",
    "inputs.input_scale",
    "inputs.input_channel_scale",
    "inputs.blank_samples",
    "inputs.target_leak",
    "inputs.test_input",
    "inputs.other_resolution",
    "inputs.resolution_dependent",
    "inputs.unnormalised_input",
    "targets.field_order",
    "targets.padding_missing",
    "targets.target_scale",
    "training.parameters_stand_still",
    "training.unchanged_parameters",
    "training.as_initialised",
    "training.weights_too_large",
    "training.weights_too_small",
    "training.updates_too_large",
    "training.loss_stopped",
    "training.weight_decay",
    "weights.weights_in_part",
    "layers.transform_axes",
    "layers.strong_dropout",
    "layers.batch_statistics",
    "layers.non_finite",
    "layers.overflow_risk",
    "layers.dead_layer",
    "layers.constant_channels",
    "layers.dead_channels",
    "layers.saturated_activation",
    "layers.exploding_activations",
    "layers.vanishing_activations",
    "layers.input_independent",
    "blocks.spectral_branch_dead",
    "blocks.local_branch_dead",
    "blocks.spectral_branch_weak",
    "blocks.branch_cancellation",
    "blocks.identity_block",
    "layers.drifting_mean",
    "layers.heavy_tail",
    "layers.high_frequency_loss",
    "layers.constant_output",
    "weights.dead_modes",
    "weights.mode_truncation",
    "layers.one_sided_spectrum",
    "weights.unused_modes",
    "layers.grid_artifact",
    "weights.exploding_gradient",
    "weights.stalled_update",
    "weights.vanishing_gradient",
    "blocks.branch_gradient_imbalance",
    "layers.linear_network",
    "layers.linear_activation",
    "targets.output_range",
    "targets.unlearned_channel",
    "targets.amplitude_or_phase",
    "targets.missing_band",
    "targets.error_above_modes",
    "targets.output_size",
    "targets.mean_predictor",
    "targets.overfitting",
    "training.collapse_at_step",
    "training.trend",
)
RULES = {(name := path.rpartition(".")[2]): f"fno_telemetry.diagnosis.rules.{path}:{name}" for path in _RULES}
"""Of two findings at one place, the cause is the one whose rule is listed first."""
KINDS: Mapping[str, Mapping[str, str]] = {
    "sinks": SINKS,
    "statistics": STATISTICS,
    "architectures": ARCHITECTURES,
    "rules": RULES,
}
_PACKAGES = {
    "tensorboard": "tensorboard",
    "wandb": "wandb",
}  # what a built-in plug-in imports that may not be installed


@dataclass(frozen=True)
class Plugin:
    """One name that can be used, where it comes from, and what is missing to use it (None: nothing)."""

    kind: str
    name: str
    origin: str
    missing: str | None


def names(kind: str) -> list[str]:
    """Return the names of this kind, the built-in ones first."""
    return list(dict.fromkeys([*KINDS[kind], *_installed(kind)]))


def load(kind: str, name: str) -> Any:
    """Return the object of that name; a built-in one wins over an installed one of the same name.

    PluginNotFound names what there is, or says why an installed one could not be imported.
    """
    if name in KINDS[kind]:
        module, _, attribute = KINDS[kind][name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    installed = _installed(kind)
    if name not in installed:
        singular = kind.removesuffix("s")
        raise PluginNotFound(f"No {singular} is called {name!r}. {hint_at_names(name, names(kind))}")
    try:
        return installed[name].load()
    except (Exception, SystemExit) as error:
        raise PluginNotFound(
            f"{name!r} is installed by {_origin(installed[name])} but cannot be imported: "
            f"{type(error).__name__}: {error}"
        ) from error


def list_plugins() -> list[Plugin]:
    """Return every plug-in, built in and installed, with what is missing to use each."""
    found = []
    for kind, table in KINDS.items():
        found += [Plugin(kind, name, "built in", _missing_package(name)) for name in table]
        for name, entry in _installed(kind).items():
            if name not in table:
                found.append(Plugin(kind, name, _origin(entry), _missing_import(kind, name)))
    return found


def _installed(kind: str) -> "dict[str, EntryPoint]":
    places = tuple((place, _time_of_change(place)) for place in sys.path)
    return {entry.name: entry for entry in _entry_points(places, f"fno_telemetry.{kind}")}


@lru_cache(maxsize=16)
def _entry_points(_: tuple[tuple[str, int], ...], group: str) -> "EntryPoints":
    """Return those of a group, which takes longer to find than a small network to be measured.

    They are found anew when the places where packages are, or what is in them, have changed.
    """
    from importlib.metadata import entry_points  # takes as long as a report to read, and help needs none

    return entry_points(group=group)


def _time_of_change(place: str) -> int:
    try:
        return Path(place).stat().st_mtime_ns
    except OSError:
        return 0


def _origin(entry: "EntryPoint") -> str:
    return entry.dist.name if entry.dist is not None else entry.value


def _missing_package(name: str) -> str | None:
    package = _PACKAGES.get(name)
    if package is None or importlib.util.find_spec(package) is not None:
        return None
    return f"pip install 'fno-telemetry[{name}]'"


def _missing_import(kind: str, name: str) -> str | None:
    try:
        load(kind, name)
    except PluginNotFound as error:
        return str(error)
    return None
