"""Puts a record together from what a capture's collector holds."""

import datetime
import hashlib
import platform
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import torch
from fno_telemetry.mapping.model_map import ModelMap
from fno_telemetry.measuring.collector import Collector
from fno_telemetry.records import CaptureRecord, FrozenMapping, TensorRecord, freeze_mapping, place_name
from fno_telemetry.sources.digests import InputDigest
from fno_telemetry.statistics.activation import dtype_name
from fno_telemetry.tracing.module_calls import paths_by_module, takes_hooks, unwrap, written_class
from fno_telemetry.version import __version__
from torch import nn

# Modules with these are often only iterated over, so that it says nothing when they are not called.
_CONTAINERS = (nn.Module.forward, nn.Sequential.forward)

_BESIDE = "called beside the model only, not within its forward"


@dataclass
class Tally:
    """What is counted while a capture runs."""

    samples: int = 0
    batch_size: int = 0
    model_seconds: float = 0.0
    telemetry_seconds: float = 0.0
    observation_seconds: float = 0.0
    gradient_seconds: float | None = None
    wall_seconds: float = 0.0
    outside: set[str] = field(default_factory=set)  # paths called outside of the model's own forward
    _digests: list[InputDigest] = field(default_factory=list)
    _undigested: bool = False

    def note_inputs(self, tensors: Sequence[torch.Tensor]) -> None:
        """Take the tensors of one batch into the digest, each position on its own."""
        before, self._undigested = self._undigested, True
        self._digests += [InputDigest() for _ in tensors[len(self._digests) :]]
        for digest, tensor in zip(self._digests, tensors, strict=False):
            digest.update(tensor)
        self._undigested = before

    def digest(self) -> str | None:
        """Return the digest of all that went in; with several inputs, the SHA-256 over their digests.

        None where a tensor could not be digested.
        """
        if self._undigested:
            return None
        digests = [digest.hexdigest() for digest in self._digests]
        return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()


def build_record(
    model: nn.Module,
    model_map: ModelMap,
    collector: Collector,
    tally: Tally,
    summary: Mapping[str, Any],
    provenance: Mapping[str, Any],
    warnings: tuple[str, ...],
) -> CaptureRecord:
    """Return the record; `summary` and `provenance` win over what is found here."""
    record_input = collector.input.record(None) if collector.input.states else None
    variation = record_input.stats.get("sample_variation") if record_input else None
    outputs = tuple(
        accumulator.record(item, variation) for (_, _, item), accumulator in collector.outputs.items()
    )
    modules = tuple(
        accumulator.module_record(item, variation) for (_, _, item), accumulator in collector.modules.items()
    )
    return CaptureRecord(
        summary=freeze_mapping(_summary(model, tally) | dict(summary)),
        layers=FrozenMapping(_layers(collector)),
        modules=modules,
        blocks=tuple(block.record() for block in collector.blocks.values()),
        input=record_input,
        output=outputs[0] if outputs else None,
        outputs=outputs,
        not_fired=_not_fired(model, collector, model_map, tally.outside),
        skipped=_with_reasons(collector.skipped),
        errors=_with_reasons(collector.failures()),
        warnings=(*warnings, *_unmet(collector)),
        provenance=freeze_mapping(_merged(_provenance(collector, tally, record_input), provenance)),
    )


def _summary(model: nn.Module, tally: Tally) -> dict[str, Any]:
    parameters = [p for p in model.parameters() if not nn.parameter.is_lazy(p)]
    return {
        "architecture": written_class(unwrap(model)).__name__,
        "n_samples": tally.samples,
        "batch_size": tally.batch_size,
        "channels": None,
        "n_modules": sum(1 for _ in model.modules()),
        "n_parameters": sum(p.numel() for p in parameters),
        "device": str(parameters[0].device) if parameters else "cpu",
        "dtype": dtype_name(parameters[0].dtype) if parameters else None,
        "weights": None,
        "checkpoint_step": None,
        "step_kind": None,
    }


def _provenance(collector: Collector, tally: Tally, record_input: TensorRecord | None) -> dict[str, Any]:
    return {
        "versions": {
            "fno_telemetry": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "input": {"shape": record_input.shape if record_input else None, "digest": tally.digest()},
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "wall_seconds": tally.wall_seconds,
        "overhead": {
            "telemetry_seconds": tally.telemetry_seconds,
            "model_seconds": tally.model_seconds,
            "observation_seconds": tally.observation_seconds,
            "mean_field_bytes": collector.budget.used,
            **({} if tally.gradient_seconds is None else {"gradient_seconds": tally.gradient_seconds}),
        },
    }


def _merged(own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return both; where both have a mapping under a key, the entries of both."""
    both = {**own, **given}
    for key in own.keys() & given.keys():
        if isinstance(own[key], Mapping) and isinstance(given[key], Mapping):
            both[key] = {**own[key], **given[key]}
    return both


def _unmet(collector: Collector) -> tuple[str, ...]:
    """Return a warning where spectral modules ran and none of their outputs was seen in a sum."""
    met = {name for block in collector.blocks.values() for name in block.spectral}
    spectral = dict.fromkeys(m.name for m in collector.modules.values() if m.role == "spectral")
    unmet = [name for name in spectral if name not in met]
    if collector.transforms_itself:
        return (
            "the model's own forward calls the Fourier transforms, so no module is spectral and there are no "
            "branch shares; they need a module of their own",
        )
    if not unmet:
        return ()
    more = f" and {len(unmet) - 1} more" if len(unmet) > 1 else ""
    return (
        f"{unmet[0]}{more}: spectral, but no sum with another branch was seen, so there are no branch shares",
    )


def _layers(collector: Collector) -> dict[str, tuple[float | None, ...]]:
    layers: dict[str, tuple[float | None, ...]] = {}
    for (name, call, item), module in collector.modules.items():
        place = place_name(name, call, item)
        if module.rows is not None:
            layers |= {f"{place}/{key}": values for key, values in module.rows.columns().items()}
    for (name, call), block in collector.blocks.items():
        if any(ratio is not None for ratio in block.legacy_ratios):
            layers[f"{place_name(name, call)}/spectral_local_ratio"] = block.legacy_column()
    return layers


def _not_fired(
    model: nn.Module, collector: Collector, model_map: ModelMap, outside: Set[str]
) -> tuple[FrozenMapping[str], ...]:
    found: dict[str, str] = {}
    paths = paths_by_module(model)
    for module in model.modules():
        names = paths.get(id(module), ())
        if not names or any(name in collector.fired for name in names):
            continue
        if not takes_hooks(module):
            found[names[0]] = "TorchScript runs without hooks"
        elif "forward" in vars(module) or type(module).forward not in _CONTAINERS:
            by_name = [name for name in names if name in outside]
            found[(by_name or names)[0]] = _BESIDE if by_name else "its forward was not called"
    for mapped in model_map.modules:
        if mapped.name not in collector.fired:
            found[mapped.name] = "called in the observed forward, not in the capture"
    return _with_reasons(found)


def _with_reasons(found: Mapping[str, str]) -> tuple[FrozenMapping[str], ...]:
    return tuple(FrozenMapping({"name": name, "reason": reason}) for name, reason in found.items())
