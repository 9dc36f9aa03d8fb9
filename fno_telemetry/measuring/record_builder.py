"""Builds the record of a capture from its collector."""

import datetime
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from fno_telemetry.mapping.measurement_plan import MeasurementPlan
from fno_telemetry.measuring.awaited_gradients import Gradients
from fno_telemetry.measuring.collector import Collector
from fno_telemetry.quantities import Quantity
from fno_telemetry.records import (
    AccuracyRecord,
    BandAccuracy,
    CaptureRecord,
    FrozenMapping,
    TensorRecord,
    Value,
    freeze_mapping,
    place_name,
)
from fno_telemetry.statistics import kernels
from fno_telemetry.statistics.activation import dtype_name
from fno_telemetry.statistics.contract import Known
from fno_telemetry.tracing.module_calls import paths_by_module, takes_hooks, unwrap, written_class
from fno_telemetry.version import __version__

# Modules with these forwards are often only iterated over, so they are not listed as not called.
_CONTAINERS = (nn.Module.forward, nn.Sequential.forward)

_CALLED_OUTSIDE = "called only outside the model's own forward"


@dataclass(frozen=True)
class Seconds:
    """The duration of a capture and of its parts, in seconds."""

    wall: float
    model: float
    telemetry: float
    structure: float


@dataclass(frozen=True)
class Run:
    """Facts about a finished capture other than its measurements."""

    samples: int
    batch_size: int
    digest: str | None
    seconds: Seconds
    called_outside: frozenset[str]  # paths called outside the model's own forward
    deviations: tuple[str, ...] = ()  # where forwards were not as planned
    budget: str = "full"
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of a batch, as they were chosen
    processes: tuple[int, ...] = ()  # the samples of each process, where there are several


def build_record(
    model: nn.Module,
    plan: MeasurementPlan,
    collector: Collector,
    run: Run,
    gradients: Gradients | None,
    quantities: tuple[Quantity, ...],
    summary: Mapping[str, Any],
    provenance: Mapping[str, Any],
    warnings: tuple[str, ...],
) -> CaptureRecord:
    """Return the record; entries of `summary` and `provenance` replace those found here."""
    collector.move_to_host()
    of_modules = gradients.modules if gradients else {}
    of_blocks = gradients.blocks if gradients else {}
    own = Known(samples=run.samples, processes=max(len(run.processes), 1))
    inputs = tuple(entered.record(item, own) for item, entered in collector.inputs.items())
    accuracy = collector.target.accuracy(own)
    known = replace(own, input=_find_varying(inputs), bands=_find_bands(accuracy))
    outputs = tuple(
        accumulator.record(item, known) for (_, _, item), accumulator in collector.outputs.items()
    )
    modules = tuple(
        accumulator.module_record(key[2], known, of_modules.get(key))
        for key, accumulator in collector.modules.items()
    )
    in_order = sorted(collector.blocks.items(), key=lambda entry: entry[1].order)
    blocks = tuple(block.record(known, of_blocks.get(key)) for key, block in in_order)
    failures = collector.failures()
    if gradients is not None:
        failures = {**collector.errors, **gradients.failures, **failures}
    not_fired, not_measured = _uncalled(model, collector, plan, run)
    return CaptureRecord(
        summary=freeze_mapping(_summary(model, run, gradients) | dict(summary)),
        layers=FrozenMapping(_layers(collector)),
        modules=modules,
        blocks=blocks,
        input=inputs[0] if inputs else None,
        inputs=inputs,
        output=outputs[0] if outputs else None,
        outputs=outputs,
        target=collector.target.record(own),
        accuracy=accuracy,
        quantities=quantities,
        not_fired=_with_reasons(not_fired),
        skipped=_with_reasons({**collector.unmeasured, **not_measured}),
        errors=_with_reasons(failures),
        warnings=(
            *warnings,
            *(gradients.warnings if gradients else ()),
            *(_describe_deviation(how) for how in run.deviations),
            *_describe_transforms(collector, plan.has_homeless_transforms),
        ),
        provenance=freeze_mapping(_merged(_provenance(collector, run, gradients, inputs), provenance)),
    )


def _find_varying(inputs: Sequence[TensorRecord]) -> Mapping[str, Value]:
    """Return the numbers of the first input that differs between samples, else of the first one."""
    varying = [entered.stats for entered in inputs if entered.stats.get("sample_variation")]
    return next(iter([*varying, *(entered.stats for entered in inputs)]), {})


def _find_bands(accuracy: AccuracyRecord | None) -> BandAccuracy | str | None:
    """Return how the output compares with the target by frequency, or why that is not known."""
    return None if accuracy is None else accuracy.bands or accuracy.reasons.get("bands")


def _summary(model: nn.Module, run: Run, gradients: Gradients | None) -> dict[str, Any]:
    parameters = [p for p in model.parameters() if not nn.parameter.is_lazy(p)]
    return {
        **({} if gradients is None else {"loss": gradients.loss}),
        "architecture": written_class(unwrap(model)).__name__,
        "n_samples": run.samples,
        "batch_size": run.batch_size,
        "channels": None,
        "n_modules": sum(1 for _ in model.modules()),
        "n_parameters": sum(p.numel() for p in parameters),
        "device": str(parameters[0].device) if parameters else "cpu",
        "dtype": dtype_name(parameters[0].dtype) if parameters else None,
        "weights": None,
        "checkpoint_step": None,
        "step_kind": None,
    }


def _provenance(
    collector: Collector, run: Run, gradients: Gradients | None, inputs: Sequence[TensorRecord]
) -> dict[str, Any]:
    parts = {"parts": dict(run.parts)} if run.parts else {}
    return {
        "versions": {
            "fno_telemetry": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "input": {"shape": inputs[0].shape if inputs else None, "digest": run.digest} | parts,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "wall_seconds": run.seconds.wall,
        "budget": run.budget,
        "deviations": len(run.deviations),
        "kernels": kernels.kernels_in_use(),
        **({"processes": {"samples": run.processes}} if run.processes else {}),
        "overhead": {
            "telemetry_seconds": run.seconds.telemetry,
            "model_seconds": run.seconds.model,
            "observation_seconds": run.seconds.structure,
            "mean_field_bytes": collector.budget.used,
            **({} if gradients is None else {"gradient_seconds": gradients.seconds}),
        },
    }


def _merged(own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of both, where `given` overrides `own`; mappings under one key are merged too."""
    both = {**own, **given}
    for key in own.keys() & given.keys():
        if isinstance(own[key], Mapping) and isinstance(given[key], Mapping):
            both[key] = {**own[key], **given[key]}
    return both


def _describe_deviation(how: str) -> str:
    return (
        f"a forward was not as planned: {how}; it was run again, and it and all later ones were followed "
        "function by function"
    )


def _describe_transforms(collector: Collector, homeless: bool) -> tuple[str, ...]:
    """Return a warning for spectral modules in no branch sum, and for transforms that belong to no module."""
    added = {name for block in collector.blocks.values() for name in block.spectral}
    spectral = dict.fromkeys(m.name for m in collector.modules.values() if m.role == "spectral")
    alone = [name for name in spectral if name not in added]
    warnings = []
    no_shares = "so no module is spectral and there are no branch shares"
    if collector.own_transforms:
        result = ", which belong to no module" if spectral else f", {no_shares}"
        warnings.append(
            f"the model's own forward calls the Fourier transforms{result}; put the transforms into a module "
            "of their own"
        )
    elif collector.transforms_apart and not spectral:
        warnings.append(
            f"one module calls the Fourier transform and another one its inverse, {no_shares}; put both "
            "into one module"
        )
    if homeless:
        warnings.append(
            "Fourier transforms were called outside of every module of the model, for example in a module "
            "that is not registered as a child: they belong to no module"
        )
    if alone:
        more = f" and {len(alone) - 1} more" if len(alone) > 1 else ""
        warnings.append(
            f"{alone[0]}{more}: spectral, but in no sum with another branch, so there are no branch shares; "
            "a sum inside the module that calls the transforms does not count"
        )
    return tuple(warnings)


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


def _uncalled(
    model: nn.Module, collector: Collector, plan: MeasurementPlan, run: Run
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the modules that did not run, and those that ran without a call, by path with the reason.

    Neither has modules that only hold tensors or modules for others, or that compute nothing.
    """
    not_fired: dict[str, str] = {}
    not_measured: dict[str, str] = {}
    paths = paths_by_module(model)

    def fired(module: nn.Module) -> bool:
        return any(name in collector.fired for name in paths.get(id(module), ()))

    for module in model.modules():
        names = paths.get(id(module), ())
        if not names or fired(module) or isinstance(module, nn.Identity):
            continue
        if not takes_hooks(module):
            not_fired[names[0]] = "TorchScript runs without hooks"
        elif "forward" in vars(module) or type(module).forward not in _CONTAINERS:
            outside = [name for name in names if name in run.called_outside]
            method = plan.methods.get(names[0])
            if outside:
                not_fired[outside[0]] = _CALLED_OUTSIDE
            elif method is not None:
                not_measured[names[0]] = f"run by its method {method}(), which no hook reports"
            elif not any(
                paths.get(id(part), ("",))[0] in plan.lent and not fired(part) for part in module.modules()
            ):
                not_fired[names[0]] = "its forward was not called"
    for mapped in plan.model_map.modules:
        if mapped.name not in collector.fired:
            not_fired[mapped.name] = "called in structure detection, but not in the capture"
    return not_fired, not_measured


def _with_reasons(reasons: Mapping[str, str]) -> tuple[FrozenMapping[str], ...]:
    return tuple(FrozenMapping({"name": name, "reason": reason}) for name, reason in reasons.items())
