"""From options to a model with its weights on its device; whatever cannot be used is refused here."""

# Annotations name classes whose modules import torch; they are not evaluated.
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fno_telemetry as ft
from fno_telemetry import plugins, sources
from fno_telemetry_cli.capturing.input_batches import InputBatches, first_line
from fno_telemetry_cli.invocation import without_secret
from fno_telemetry_cli.options.model import Source
from fno_telemetry_cli.options.spelling import spell_options

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Prepared:
    """What one capture needs."""

    model: nn.Module
    batches: list[Any]
    parts: sources.BatchParts
    samples: int
    given: Mapping[str, ft.GivenRole]
    summary: dict[str, Any]
    provenance: dict[str, Any]
    warnings: tuple[str, ...] = ()
    loss: Callable[[Any, Any], Any] | str | None = None
    prediction: Callable[[Any, Any], Any] | None = None

    def map_model(self) -> ft.ModelMap:
        """Return the map of the model on these batches."""
        return self.make_plan().model_map

    def make_plan(self) -> ft.MeasurementPlan:
        """Return how forwards on these batches are measured."""
        return ft.plan(
            self.model,
            self.batches,
            inputs=self.parts.inputs,
            target=self.parts.target or None,
            given=self.given,
        )


def prepare(source: Source, given: InputBatches) -> Prepared:
    """Read the weights and build the model; TelemetryError, one line, for whatever cannot be used."""
    settings = sources.parse_settings(source.network.settings or ())
    roles = ft.read_map(source.weights.map_file) if source.weights.map_file else {}
    checkpoint = None
    if source.checkpoint is not None:
        weights = source.weights
        checkpoint = sources.read_checkpoint(
            source.checkpoint, trust=weights.trust_checkpoint, weights=weights.weight_set
        )
    if source.network.model is not None:
        network = _build_from_factory(source, settings, checkpoint)
    else:
        network = _build_by_name(source, settings, checkpoint, given.first)
    model, batches = _move(network.model, given.batches, given.device)
    warnings = (*(each for array in given.arrays for each in array.warnings), *network.warnings)
    return Prepared(
        model,
        batches,
        given.parts,
        given.count,
        roles,
        _summary(network, checkpoint if source.counts else None, given.first),
        _provenance(source, network, given.arrays, checkpoint),
        tuple(map(spell_options, warnings)),
        given.loss,
        given.prediction,
    )


def _build_from_factory(
    source: Source, settings: Mapping[str, object], checkpoint: sources.Checkpoint | None
) -> sources.Network:
    spec, seed = source.network.model or "", source.weights.seed
    model = sources.build_from_factory(spec, settings, seed)
    name = type(model).__name__
    if checkpoint is None:
        # A factory may load weights itself, so nothing more is known about them.
        return sources.Network(model, name, settings, f"as made by {spec}, seed {seed}")
    match = sources.load_weights(model, checkpoint, allow_missing=source.weights.allow_missing)
    return sources.Network(model, name, settings, "checkpoint", match.warnings, match)


def _build_by_name(
    source: Source,
    settings: Mapping[str, object],
    checkpoint: sources.Checkpoint | None,
    first: torch.Tensor | None,
) -> sources.Network:
    if first is None or first.ndim != 4:
        shape = None if first is None else tuple(first.shape)
        raise ft.InputError(
            f"{source.data.input or source.data.batches}: gives batches of shape {shape}, and the built-in "
            "networks take (samples, channels, height, width); choose --axes, or another network by --model"
        )
    architectures = {name: plugins.load("architectures", name) for name in plugins.names("architectures")}
    return sources.build_network(
        architectures,
        source.network.architecture,
        checkpoint=checkpoint,
        settings=settings,
        channels=first.shape[1],
        size=min(first.shape[2:]),
        seed=source.weights.seed,
        allow_missing=source.weights.allow_missing,
    )


def _move(model: nn.Module, batches: list[Any], device: torch.device) -> tuple[nn.Module, list[Any]]:
    try:
        return model.to(device), [sources.move_batch(batch, device) for batch in batches]
    except Exception as error:  # backends raise what they like when memory runs out
        raise ft.OptionError(
            f"--device {device}: model and input cannot be moved there ({first_line(error)}); "
            "lower --max-samples, or use --device cpu"
        ) from error


def _summary(
    network: sources.Network, checkpoint: sources.Checkpoint | None, first: torch.Tensor | None
) -> dict[str, Any]:
    return {
        "architecture": network.architecture,
        "channels": first.shape[1] if first is not None and first.ndim > 1 else None,
        "weights": network.weights,
        "checkpoint_step": checkpoint.step if checkpoint else None,
        "step_kind": checkpoint.step_kind if checkpoint else None,
    }


def _provenance(
    source: Source,
    network: sources.Network,
    arrays: tuple[sources.Samples, ...],
    checkpoint: sources.Checkpoint | None,
) -> dict[str, Any]:
    found: dict[str, Any] = {"seed": source.weights.seed, "arguments": _plain(network.arguments)}
    if arrays:
        found["input"] = {"path": arrays[0].path, **_describe_array(arrays[0])}
        if len(arrays) > 1:
            found["input"]["other_arrays"] = list(map(_describe_array, arrays[1:]))
    else:
        found["input"] = {"batches": source.data.batches}
    given = {"loss": source.loss, "prediction": source.prediction}
    found |= {name: spec for name, spec in given.items() if spec is not None}
    if checkpoint is not None:
        name = source.checkpoint_name or Path(checkpoint.path).stem
        found["checkpoint"] = {
            "name": name,
            "path": checkpoint.path,
            "sha256": checkpoint.sha256,
            "checksums": checkpoint.checksums,
        }
        if network.match is not None and network.match.weights is not None:
            sets = {"weights": network.match.weights, "other_weights": list(network.match.other_weights)}
            found["checkpoint"] |= sets
    return found


def _describe_array(array: sources.Samples) -> dict[str, Any]:
    stored = {"shape": list(array.stored_shape), "dtype": array.stored_dtype}
    return {"key": array.key, "axes": array.axes, "stored": stored, "checksums": array.checksums}


def _plain(value: Any, key: str = "") -> Any:
    """Return arguments as a report can hold them: anything but plain values by its repr, secrets masked."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part, str(name)) for name, part in value.items()}
    if without_secret(f"{key}=?") != f"{key}=?":
        return "***"
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value if isinstance(value, str | int | float | None) else repr(value)
