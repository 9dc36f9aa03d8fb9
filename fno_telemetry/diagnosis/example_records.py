"""A healthy record made by hand, and changed copies of it: examples for rules and tests, without torch."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fno_telemetry.errors import OptionError
from fno_telemetry.quantities import QUANTITIES
from fno_telemetry.records import (
    AccuracyRecord,
    BandAccuracy,
    BlockRecord,
    CaptureRecord,
    FrozenMapping,
    ModuleRecord,
    ParameterRecord,
    Role,
    Spectrum,
    TensorRecord,
    ValueSample,
    freeze_mapping,
)
from fno_telemetry.wording import find_near_names

_HEALTHY: dict[str, Any] = {
    "nan_count": 0,
    "inf_count": 0,
    "finite_fraction": 1.0,
    "mean": 0.1,
    "std": 1.0,
    "rms": 1.0,
    "min": -4.0,
    "max": 4.0,
    "p01": -2.3,
    "p05": -1.6,
    "p50": 0.1,
    "p95": 1.6,
    "p99": 2.3,
    "abs_p50": 0.67,
    "abs_p99": 2.6,
    "tail_ratio": 3.9,
    "dead_channel_fraction": 0.0,
    "constant_channel_fraction": 0.0,
    "sample_variation": 0.9,
    "relative_sample_variation": 0.9,
    "dc_fraction": 0.1,
    "low_frequency_fraction": 0.7,
    "high_frequency_fraction": 0.1,
    "one_sidedness": 1.0,
}
_BLOCK: dict[str, Any] = {
    "spectral_local_ratio": 1.0,
    "spectral_share": 0.5,
    "branch_cosine": 0.0,
    "branch_coherence": 0.7,
    "update_ratio": 0.5,
    "gain": 1.1,
    "spectral_local_gradient_ratio": 1.0,
}
_WEIGHTS: dict[str, Any] = {
    "weight_norm": 3.0,
    "grad_norm": 0.03,
    "grad_to_weight": 0.01,
    "grad_nonfinite_count": 0,
}
_MODES: dict[str, Any] = {
    "dead_mode_fraction": 0.0,
    "effective_modes": 60.0,
    "unused_weight_fraction": 0.0,
    "truncated_energy_fraction": 0.1,
}
_FIELDS = ("class_name", "dtype", "reasons")
_FALLING = (0.6, 0.2, 0.1, 0.05, 0.03, 0.01, 0.005, 0.002)


def healthy_record() -> CaptureRecord:
    """Return the record of a small healthy network: lifting, three blocks, projection.

    Its modules are `lifter.conv`, `lifter`, then `spectral`, `local` and `act` of `blocks.0` to `blocks.2`
    and these blocks themselves, and `head`. No built-in rule finds anything in it.
    """
    modules = [
        _module("lifter.conv", "other", "Conv2d", _WEIGHTS),
        _module("lifter", "lifting", "Lifter", {}),
    ]
    for index in range(3):
        name = f"blocks.{index}"
        modules += [
            _module(f"{name}.spectral", "spectral", "SpectralConv", _WEIGHTS | _MODES),
            _module(f"{name}.local", "local", "Conv2d", _WEIGHTS),
            _module(f"{name}.act", "activation", "GELU", {"min": -0.17, "p01": -0.16, "mean": 0.4}),
            _module(name, "block", "Block", {}),
        ]
    modules.append(_module("head", "projection", "Conv2d", _WEIGHTS))
    blocks = [
        BlockRecord(
            name=f"blocks.{index}",
            call=0,
            spectral=(f"blocks.{index}.spectral",),
            local=(f"blocks.{index}.local",),
            stats=FrozenMapping(_BLOCK),
        )
        for index in range(3)
    ]
    output = _tensor((8, 2, 32, 32))
    return CaptureRecord(
        summary=freeze_mapping({"n_samples": 8, "batch_size": 8, "checkpoint_step": None, "step_kind": None}),
        layers=FrozenMapping(),
        modules=tuple(replace(module, order=order) for order, module in enumerate(modules)),
        blocks=tuple(blocks),
        input=_tensor((8, 1, 32, 32)),
        output=output,
        outputs=(output,),
    )


def change_input(
    record: CaptureRecord,
    shape: tuple[int, ...] | None = None,
    channel_rms: tuple[float, ...] | None = None,
    **stats: Any,
) -> CaptureRecord:
    """Return the record with statistics, the shape and the rms of channels of its input changed."""
    if record.input is None:
        raise ValueError("the record has no input")
    changed = _changed(record, record.input, stats)
    changed = replace(changed, shape=shape or changed.shape, channel_rms=channel_rms or changed.channel_rms)
    return replace(record, input=changed)


def change_output(record: CaptureRecord, bands: tuple[float, ...] = (), **stats: Any) -> CaptureRecord:
    """Return the record with statistics, and the spectrum along both axes, of its output changed."""
    if record.output is None:
        raise ValueError("the record has no output")
    output = _changed(record, record.output, stats)
    output = replace(output, spectrum=_spectrum(*bands)) if bands else output
    return replace(record, output=output, outputs=(output,))


def change_module(record: CaptureRecord, name: str, **stats: Any) -> CaptureRecord:
    """Return the record with statistics, `class_name`, `dtype` or `reasons` of a module changed.

    KeyError when there is no module of that name; OptionError for a misspelled statistic.
    """
    record.module(name)
    modules = [_changed(record, m, dict(stats)) if m.name == name else m for m in record.modules]
    return replace(record, modules=tuple(modules))


def change_block(record: CaptureRecord, index: int, **stats: Any) -> CaptureRecord:
    """Return the record with statistics of a block changed."""
    blocks = list(record.blocks)
    blocks[index] = _changed(record, blocks[index], stats)
    return replace(record, blocks=tuple(blocks))


def make_linear(rms: float) -> CaptureRecord:
    """Return the healthy record with linear layers whose weights, of shape (48, 48), have this rms."""
    record = healthy_record()
    names = [module.name for module in record.modules[:3]]
    weights = [
        ParameterRecord(
            name=f"{name}.weight",
            shape=(48, 48),
            dtype="float32",
            stats=FrozenMapping(),
            sample=ValueSample(2304, -3 * rms, 3 * rms, rms),
        )
        for name in names
    ]
    return replace(
        record,
        modules=tuple(
            replace(module, class_name="Linear") if module.name in names else module
            for module in record.modules
        ),
        parameters=tuple(weights),
    )


def add_training(
    record: CaptureRecord,
    parameters: Mapping[str, Mapping[str, float]] | None = None,
    loss: float | None = None,
    **facts: Any,
) -> CaptureRecord:
    """Return the record as one of a watched training step.

    `parameters` holds statistics of parameters by their names, such as {"head.weight": {"moved": 0.1}}, with
    moved 0.1 for the weight of every layer that has weights and is not named; `facts` are entries of
    `training`, such as learning_rates=(1e-3,).
    """
    weighted = [module.name for module in record.modules if module.stats.get("weight_norm") is not None]
    stats = {f"{name}.weight": {"moved": 0.1} for name in weighted} | dict(parameters or {})
    return replace(
        record,
        summary=freeze_mapping({**record.summary, "loss": loss}),
        parameters=tuple(
            ParameterRecord(name=name, shape=(8,), dtype="float32", stats=FrozenMapping(values))
            for name, values in stats.items()
        ),
        training=freeze_mapping({"stage": "train", **facts}),
    )


def add_target(
    record: CaptureRecord,
    ratios: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    target: Mapping[str, float] | None = None,
    **accuracy: float,
) -> CaptureRecord:
    """Return the record as one that was captured with a target, which the output meets to 10 %.

    `ratios` are those of the energy of the output to that of the target in bands up to 1/16, 1/8, 1/4 and 1/2
    cycle per grid point, in which the target has 0.4, 0.3, 0.2 and 0.1 of its energy; `target` holds
    statistics of the target, `accuracy` those of the comparison.
    """
    if record.output is None:
        raise ValueError("the record has no output")
    energies = (0.0, 0.4, 0.3, 0.2, 0.1)
    outputs = (0.0, *(ratio * energy for ratio, energy in zip(ratios, energies[1:], strict=True)))
    errors = tuple(
        (math.sqrt(one) - math.sqrt(other)) ** 2 for one, other in zip(energies, outputs, strict=True)
    )
    bands = BandAccuracy(
        sizes=(32, 32),
        band_edges=(0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2),
        target=energies,
        output=outputs,
        error=errors,
        band_error=(None, *(math.sqrt(e / y) for e, y in zip(errors[1:], energies[1:], strict=True))),
        spectrum_ratio=(None, *ratios),
        band_coherence=(None, 1.0, 1.0, 1.0, 1.0),
    )
    stats = {"relative_l2": 0.1, "error_to_mean_predictor": 0.1, "output_to_target_rms": 1.0} | accuracy
    return replace(
        record,
        target=_changed(record, record.output, dict(target or {})),
        accuracy=AccuracyRecord(stats=FrozenMapping(stats), bands=bands),
    )


def remove_numbers(record: CaptureRecord) -> CaptureRecord:
    """Return the record with every statistic undefined, and no spectrum."""

    def emptied(entry: Any) -> Any:
        if entry is None:
            return None
        empty = replace(entry, stats=FrozenMapping(dict.fromkeys(entry.stats)))
        return replace(empty, spectrum=None) if hasattr(entry, "spectrum") else empty

    return replace(
        record,
        modules=tuple(map(emptied, record.modules)),
        blocks=tuple(map(emptied, record.blocks)),
        input=emptied(record.input),
        output=emptied(record.output),
        outputs=tuple(map(emptied, record.outputs)),
        parameters=tuple(map(emptied, record.parameters)),
        target=emptied(record.target),
        accuracy=None if record.accuracy is None else replace(emptied(record.accuracy), bands=None),
    )


def set_step(record: CaptureRecord, step: int) -> CaptureRecord:
    """Return the record as one of a checkpoint of this step."""
    summary = freeze_mapping({**record.summary, "checkpoint_step": step, "step_kind": "step"})
    return replace(record, summary=summary)


def make_series(*records: CaptureRecord) -> list[CaptureRecord]:
    """Return the records as a series, with the steps 0, 10, 20 and so on."""
    return [set_step(record, 10 * index) for index, record in enumerate(records)]


def _module(name: str, role: Role, class_name: str, more: dict[str, Any]) -> ModuleRecord:
    entry = _tensor(**more)
    fields = {field: getattr(entry, field) for field in TensorRecord.__dataclass_fields__}
    parent = name.rpartition(".")[0] or None
    return ModuleRecord(**fields, name=name, call=0, order=0, parent=parent, class_name=class_name, role=role)


def _changed(record: CaptureRecord, entry: Any, stats: dict[str, Any]) -> Any:
    fields = {name: stats.pop(name) for name in _FIELDS if name in stats}
    _refuse_misspelled(stats, [*entry.stats, *QUANTITIES, *(each.name for each in record.quantities)])
    if "reasons" in fields:
        fields["reasons"] = FrozenMapping(fields["reasons"])
    return replace(entry, stats=FrozenMapping({**entry.stats, **stats}), **fields)


def _refuse_misspelled(stats: Iterable[str], known: Sequence[str]) -> None:
    """Raise OptionError for a name that is almost a known one; any other is the number of another package."""
    for name in stats:
        close = [] if name in known else find_near_names(name, [*_FIELDS, *known], most=1)
        if close:
            raise OptionError(
                f"no number of the record is called {name!r}; did you mean {close[0]!r}? A number of another "
                "package with such a name must be in the record's `quantities`"
            )


def _tensor(shape: tuple[int, ...] = (8, 16, 32, 32), **stats: Any) -> TensorRecord:
    """Return the record of a tensor of fields of 32 x 32 points."""
    return TensorRecord(
        item=None,
        shape=shape,
        dtype=stats.pop("dtype", "float32"),
        spatial_axes=(2, 3),
        values_of="x",
        stats=FrozenMapping({"count": math.prod(shape)} | _HEALTHY | stats),
        spectrum=_spectrum(),
    )


def _spectrum(*bands: float) -> Spectrum:
    """Return a spectrum whose axes have these shares, a falling one by default."""
    shares = bands or _FALLING
    edges = tuple(0.5 * index / len(shares) for index in range(len(shares) + 1))
    return Spectrum(
        sizes=(32, 32),
        fields=128,
        fields_left_out=0,
        low_cutoff=0.125,
        high_cutoff=0.25,
        band_edges=edges,
        bands=shares,
        axis_band_edges=edges,
        axis_bands=(shares, shares),
    )
