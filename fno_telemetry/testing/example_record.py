"""A record of a training step, built without torch: every kind of entry that sinks and readers meet."""

from dataclasses import replace
from itertools import pairwise

import numpy as np

from fno_telemetry.findings import Finding, Severity
from fno_telemetry.records import (
    AccuracyRecord,
    BandAccuracy,
    BlockRecord,
    CaptureRecord,
    FrozenMapping,
    Histogram,
    LogHistogram,
    ModuleRecord,
    ParameterRecord,
    Role,
    SketchNote,
    Spectrum,
    TensorRecord,
    freeze_mapping,
)

LOG_EDGES = tuple(-8 + index / 4 for index in range(65))
STATISTICS_OF_A_LAYER = 32
"""As many as `large` gives each."""

AWKWARD = "odd|name <b>_of_*a* `layer` [x](y) & \\co"
"""Torch allows any character but the dot in a module's name."""


def example() -> CaptureRecord:
    """Return the record."""
    random = np.random.default_rng(0)

    def field(scale: float, mean: float = 0.0) -> np.ndarray:
        return random.normal(mean, scale, (4, 2, 8, 8))

    zero = np.zeros((4, 2, 8, 8))
    narrow = 10_000 + 1e-5 * random.integers(0, 5, (4, 2, 8, 8))
    modules = [
        _module("lifter", field(1.0), "lifting", "Conv2d"),
        _module("fno_blocks.0.spectral", field(0.5), "spectral", "SpectralConv", parent="fno_blocks.0"),
        _module("fno_blocks.0.local_conv", field(2.0), "local", "Conv2d", parent="fno_blocks.0"),
        _module("fno_blocks.0#gelu", np.abs(field(1.0)), "activation", "gelu", parent="fno_blocks.0"),
        _module("fno_blocks.0", field(1.5), "block", "Block"),
        _module("fno_blocks.1", field(1.7), "block", "Block"),
        _module("fno_blocks.10", field(1.9), "block", "Block"),
        _module("shared", field(3.0), "norm", "GroupNorm"),
        _module("shared", field(4.0), "norm", "GroupNorm", call=1),
        _module("dead", zero, "other", "Conv2d"),
        _module("narrow", narrow, "other", "Conv2d"),
        _module(AWKWARD, field(1.0), "other", "Conv2d"),
        _module("heads", field(0.1), "projection", "Heads", item="0"),
        _module("heads", field(0.2), "projection", "Heads", item="1"),
        # Really called like one of the model's sides.
        _module("output", field(0.3), "projection", "Conv2d"),
    ]
    outputs = (_tensor(field(0.1), item="0"), _tensor(field(0.2), item="amp"))
    return CaptureRecord(
        summary=freeze_mapping(
            {
                "architecture": "CascadedFNOGenerator",
                "n_samples": 4,
                "batch_size": 2,
                "channels": 2,
                "n_modules": 20,
                "n_parameters": 656_002,
                "device": "cpu",
                "dtype": "float32",
                "weights": "checkpoint",
                "checkpoint_step": 1000,
                "step_kind": "step",
            }
        ),
        layers=FrozenMapping(
            {
                "lifter/mean": (0.8, 0.7),
                "fno_blocks.0/spectral_local_ratio": (0.25, None),
                "dead/p99": (0.0, 0.0),
            }
        ),
        modules=tuple(
            replace(module, order=order, process_extremes=_EXTREMES) for order, module in enumerate(modules)
        ),
        blocks=(
            _block("fno_blocks.0", 0.25, 0.1, 1.1),
            _block("fno_blocks.1", 0.5, 0.2, 1.2),
            _block("fno_blocks.10", 0.75, 0.3, 1.3),
            _block("spec_encoder#0", None, 0.4, 1.4),
        ),
        input=replace(_tensor(field(1.0)), channel_rms=(0.75, None), process_extremes=_EXTREMES),
        output=outputs[0],
        outputs=outputs,
        parameters=(
            _parameter("lifter.weight", (2, 2, 3, 3), moved=0.25),
            _parameter("lifter.bias", (2,), moved=0.0),
            _parameter("gate", (), weight_norm=1.5, update_to_weight=0.001, grad_norm=0.0625, moved=None),
        ),
        target=_tensor(field(1.5)),
        accuracy=AccuracyRecord(
            stats=FrozenMapping({"relative_l2": 0.125, "output_to_target_rms": None}),
            reasons=FrozenMapping(
                {
                    "output_to_target_rms": "the target is zero",
                    "band_error": "the target has no energy in a band that is null",
                    "spectrum_ratio": "the target has no energy in a band that is null",
                    "band_coherence": "the output or the target has no energy in a band that is null",
                    "channels": "the target of a channel that is null is zero",
                }
            ),
            bands=_BANDS,
            channels=(0.5, None),
        ),
        training=freeze_mapping({"stage": "train", "forwards": 2, "dropped": 0, "learning_rates": [0.001]}),
        not_fired=(freeze_mapping({"name": "unused", "reason": "its forward was not called"}),),
        skipped=(freeze_mapping({"name": "codes", "reason": "int64 values are not measured"}),),
        warnings=("dead | is <zero> everywhere",),
        provenance=freeze_mapping(
            {
                "command": ["fno-telemetry", "capture", "--input", "Übung 1.npz"],
                "versions": {"torch": "2.13.0", "numpy": "2.4.6"},
                "overhead": {"telemetry_seconds": 0.1, "model_seconds": 1.0},
                "seed": None,
            }
        ),
    )


def add_findings(record: CaptureRecord) -> CaptureRecord:
    """Return the record with three findings: a cause, a consequence of it, and a note on the whole model."""
    layers = {"dead_layer": "dead", "input_independent": "heads[0]", "unused_modes": None}
    severities: tuple[Severity, ...] = ("error", "warning", "note")
    findings = tuple(
        Finding(
            id=f"{rule}:{layer or 'model'}",
            rule=rule,
            severity=severity,
            layer=layer,
            step=record.step,
            report="activation_report.json",
            message=f"{rule} | <b> of `{layer}`",
            evidence=FrozenMapping({"rms": 0.0, "count": 3, "where": "x"}),
            advice="Look at it.",
            follows_from="dead_layer:dead" if rule == "input_independent" else None,
        )
        for (rule, layer), severity in zip(layers.items(), severities, strict=True)
    )
    return replace(record, findings=findings)


def at_step(record: CaptureRecord, step: int | None) -> CaptureRecord:
    """Return the record as of another checkpoint."""
    return replace(record, summary=freeze_mapping({**record.summary, "checkpoint_step": step}))


def with_stats(record: CaptureRecord, name: str, **stats: float | None) -> CaptureRecord:
    """Return the record with some numbers of one module changed."""
    changed = [
        replace(module, stats=FrozenMapping({**module.stats, **stats})) if module.name == name else module
        for module in record.modules
    ]
    return replace(record, modules=tuple(changed))


def without(record: CaptureRecord, *names: str) -> CaptureRecord:
    """Return the record without these modules."""
    return replace(record, modules=tuple(module for module in record.modules if module.name not in names))


def _module(
    name: str,
    x: np.ndarray,
    role: Role,
    class_name: str,
    call: int = 0,
    item: str | None = None,
    parent: str | None = None,
) -> ModuleRecord:
    tensor = _tensor(x, item)
    fields = {field: getattr(tensor, field) for field in TensorRecord.__dataclass_fields__}
    return ModuleRecord(
        **fields, name=name, call=call, order=0, parent=parent, class_name=class_name, role=role
    )


def _tensor(x: np.ndarray, item: str | None = None) -> TensorRecord:
    size = np.abs(x)
    p01, p05, p50, p95, p99 = (float(p) for p in np.percentile(x, (1, 5, 50, 95, 99), method="inverted_cdf"))
    a50, a95, a99 = (float(p) for p in np.percentile(size, (50, 95, 99), method="inverted_cdf"))
    live = bool(size.max() > 0)
    stats = {
        "count": x.size + 2,
        "nan_count": 1,
        "inf_count": 1,
        "finite_fraction": x.size / (x.size + 2),
        "mean": float(x.mean()),
        "std": float(x.std()),
        "rms": float(np.sqrt(np.mean(x * x))),
        "min": float(x.min()),
        "max": float(x.max()),
        "p01": p01,
        "p05": p05,
        "p50": p50,
        "p95": p95,
        "p99": p99,
        "abs_mean": float(size.mean()),
        "abs_std": float(size.std()),
        "abs_p50": a50,
        "abs_p95": a95,
        "abs_p99": a99,
        "tail_ratio": a99 / a50 if live else None,
        "zero_fraction": float(np.mean(x == 0)),
        "negative_fraction": float(np.mean(x < 0)),
        "dead_channel_fraction": 0.0 if live else 1.0,
        "sample_variation": 0.9 if live else None,
        "low_frequency_fraction": 0.125 if live else None,
    }
    reasons = {"tail_ratio": "abs_p50 is zero", "sample_variation": "it is zero everywhere"}
    reasons["low_frequency_fraction"] = "the fields are zero everywhere"
    return TensorRecord(
        item=item,
        shape=x.shape,
        dtype="float32",
        spatial_axes=(2, 3),
        values_of="x",
        stats=FrozenMapping(stats),
        reasons=FrozenMapping({} if live else reasons),
        histogram=_histogram(x),
        log_histogram=_log_histogram(size),
        spectrum=_SPECTRUM if live else None,
        sketch=SketchNote(relative_error=0.0078, underflow=0, overflow=0),
    )


def _histogram(x: np.ndarray) -> Histogram:
    """Return bins over the middle, empty ones at both ends among them."""
    low, high = np.percentile(x, (2, 98))
    if low == high:
        return Histogram((float(low), float(np.nextafter(np.float32(low), np.float32(1)))), (x.size,), 0, 0)
    width = (high - low) / 4
    edges = np.concatenate(([low - width], np.linspace(low, high, 9), [high + width]))
    counts = [int(np.sum((x >= a) & (x < b))) for a, b in pairwise(edges[1:-1])]
    inside = (0, *counts, 0)
    below, above = int(np.sum(x < low)), int(np.sum(x >= high))
    return Histogram(tuple(edges.tolist()), inside, below, above)


def _log_histogram(size: np.ndarray) -> LogHistogram:
    decades = np.log10(size[size > 0])
    counts, _ = np.histogram(decades, LOG_EDGES)
    return LogHistogram(
        LOG_EDGES, tuple(counts.tolist()), int(np.sum(decades < -8)), 0, int(np.sum(size == 0))
    )


def _block(name: str, ratio: float | None, update: float, gain: float) -> BlockRecord:
    where = name.partition("#")[0]
    share = ratio and ratio**2 / (1 + ratio**2)
    stats = {"spectral_local_ratio": ratio, "spectral_share": share, "update_ratio": update, "gain": gain}
    missing = "the local branch is constant in space"
    return BlockRecord(
        name=name,
        call=0,
        spectral=(f"{where}.spectral",),
        local=(f"{where}.local_conv",),
        stats=FrozenMapping(stats),
        reasons=FrozenMapping({name: missing for name, value in stats.items() if value is None}),
    )


def _parameter(name: str, shape: tuple[int, ...], **stats: float | None) -> ParameterRecord:
    return ParameterRecord(
        name=name,
        shape=shape,
        dtype="float32",
        stats=FrozenMapping(stats),
        reasons=FrozenMapping(
            {name: "the parameter was zero" for name, value in stats.items() if value is None}
        ),
    )


_SPECTRUM = Spectrum(
    sizes=(8, 8),
    fields=8,
    fields_left_out=0,
    low_cutoff=0.125,
    high_cutoff=0.25,
    band_edges=(0.0, 0.25, 0.5, 0.75),
    bands=(0.5, 0.375, 0.125),
    axis_band_edges=(0.0, 0.25, 0.5),
    axis_bands=((0.5, 0.5), (0.75, 0.25)),
)


_EXTREMES = ((-1.5, 2.5), (None, None))  # of two processes, one without a finite element

_BANDS = BandAccuracy(
    sizes=(8, 8),
    band_edges=(0.0, 0.25, 0.5, 0.75),
    target=(16.0, 4.0, 1.0, 0.0),
    output=(9.0, 4.0, 0.25, 0.5),
    error=(1.0, 0.0, 0.75, 0.5),
    band_error=(0.25, 0.0, 0.8660254037844386, None),
    spectrum_ratio=(0.5625, 1.0, 0.25, None),
    band_coherence=(1.0, 1.0, 0.5, None),
)


def large(record: CaptureRecord, layers: int = 200) -> CaptureRecord:
    """Return a record of 200 layers and 50 blocks, each as large as a capture makes it."""
    random = np.random.default_rng(1)
    edges = tuple(np.cumsum(random.random(65)).tolist())
    counts = tuple(random.integers(1, 100_000, 64).tolist())
    model, block = record.modules[1], record.blocks[0]
    missing = range(STATISTICS_OF_A_LAYER - len(model.stats))
    stats = [*model.stats, *(f"another_fraction_{index}" for index in missing)]
    modules = tuple(
        replace(
            model,
            name=f"encoder.fno_blocks.{index // 4}.branch_{index % 4}.spectral_conv",
            order=index,
            # As many digits as a float has.
            stats=FrozenMapping({name: float(random.random()) for name in stats}),
            histogram=Histogram(edges, counts, 1, 1),
            log_histogram=LogHistogram(tuple(-8 + i / 4 for i in range(65)), counts, 0, 0, 0),
        )
        for index in range(layers)
    )
    block_stats = FrozenMapping({f"{name}_{index}": 1 / 3 for name in block.stats for index in range(2)})
    blocks = tuple(replace(block, name=f"encoder.fno_blocks.{i}", stats=block_stats) for i in range(50))
    return replace(record, modules=modules, blocks=blocks)
