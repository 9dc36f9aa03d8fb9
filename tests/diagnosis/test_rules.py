"""The built-in rules case by case: where they fire and how severely, and close by, where they are silent.

What every rule has to do, also one of another package, is in `test_rule_contract.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from fno_telemetry.diagnosis import example_records
from fno_telemetry.diagnosis.findings import diagnose
from fno_telemetry.records import CaptureRecord

Record = CaptureRecord | Sequence[CaptureRecord]


@dataclass(frozen=True)
class Case:
    """A record on which a rule fires, and one close to it on which it must not."""

    rule: str
    fires: Callable[[CaptureRecord], Record]
    layer: str | None
    severity: str
    silent: Callable[[CaptureRecord], Record]
    against: dict[str, Any] = field(default_factory=dict)
    by_shape: bool = False  # read off a shape, which is never undefined, and no statistic


def inp(**stats: Any) -> Callable[[CaptureRecord], CaptureRecord]:
    return lambda record: example_records.change_input(record, **stats)


def out(**stats: Any) -> Callable[[CaptureRecord], CaptureRecord]:
    return lambda record: example_records.change_output(record, **stats)


def mod(name: str, **stats: Any) -> Callable[[CaptureRecord], CaptureRecord]:
    return lambda record: example_records.change_module(record, name, **stats)


def block(index: int, **stats: Any) -> Callable[[CaptureRecord], CaptureRecord]:
    return lambda record: example_records.change_block(record, index, **stats)


def every(kind: str, **stats: Any) -> Callable[[CaptureRecord], CaptureRecord]:
    """Change all blocks, or all spectral layers."""

    def change(record: CaptureRecord) -> CaptureRecord:
        for index in range(3):
            if kind == "block":
                record = example_records.change_block(record, index, **stats)
            else:
                record = example_records.change_module(record, f"blocks.{index}.{kind}", **stats)
        return record

    return change


def all_of(*changes: Callable[[CaptureRecord], CaptureRecord]) -> Callable[[CaptureRecord], CaptureRecord]:
    def change(record: CaptureRecord) -> CaptureRecord:
        for one in changes:
            record = one(record)
        return record

    return change


def steps(*changes: Callable[[CaptureRecord], CaptureRecord]) -> Callable[[CaptureRecord], Record]:
    return lambda record: example_records.make_series(*(change(record) for change in changes))


def same(record: CaptureRecord) -> CaptureRecord:
    return record


S, L, ACT = "blocks.1.spectral", "blocks.1.local", "blocks.1.act"
CASES = [
    Case("input_scale", inp(rms=1e4), "input", "warning", inp(rms=3.0), {"baseline": same}),
    Case("input_scale", inp(rms=0.05), "input", "warning", inp(rms=0.3), {"baseline": same}),
    Case("input_scale", inp(mean=300.0, std=1.0), "input", "warning", inp(mean=9.0), {"baseline": same}),
    # A network that is made for temperatures in kelvin.
    Case(
        "input_scale",
        inp(mean=300.0, std=0.1, rms=300.0),
        "input",
        "warning",
        inp(mean=310.0, std=1.0, rms=310.0),
        {"baseline": inp(mean=300.0, std=1.0, rms=300.0)},
    ),
    Case("input_scale", inp(rms=1e4), "input", "note", inp(rms=500.0)),
    Case("input_scale", inp(rms=1e-4), "input", "note", inp(rms=0.01)),
    Case("input_scale", inp(mean=-300.0, std=1.0), "input", "note", inp(mean=-50.0, std=1.0)),
    Case("bad_input", inp(nan_count=3), "input", "error", same),
    Case(
        "bad_input",
        inp(min=0.0, max=0.0, rms=0.0, std=0.0),
        "input",
        "error",
        inp(min=0.0, max=1e-9, std=1e-9),
    ),
    Case("bad_input", inp(min=5.0, max=5.0, std=0.0), "input", "error", inp(min=5.0, max=5.01, std=0.005)),
    Case(
        "bad_input",
        inp(sample_variation=0.0),
        "input",
        "warning",
        inp(shape=(1, 1, 32, 32), sample_variation=0.0),
    ),
    Case(
        "bad_input",
        inp(min=0.0, p05=1.0, p50=4.0, p95=31.0, p99=90.0, max=1204.0),
        "input",
        "warning",
        inp(min=0.0, p05=0.1, p50=4.0, p95=31.2, p99=90.5, max=1204.25),
    ),
    Case(
        "bad_input",
        inp(min=-1.0, p05=-1.0, p50=4.0, p95=31.0, p99=90.0, max=1204.0),
        "input",
        "warning",
        inp(min=-90.0, p05=-30.0, p50=4.0, p95=31.0, p99=90.0, max=120.0),
    ),
    Case(
        "bad_input",
        inp(min=-9999.0, p05=-9999.0, p50=40.0, p95=310.0, p99=900.0, max=60000.0),
        "input",
        "warning",
        inp(min=-9999.0, p05=-9999.0, p50=-40.0, p95=310.0, p99=900.0, max=60000.0),
    ),
    Case(
        "bad_input",
        inp(shape=(8, 64, 64, 1)),
        "input",
        "warning",
        inp(shape=(8, 8, 64, 64)),
        by_shape=True,
    ),
    Case("non_finite", mod(S, nan_count=1), S, "error", same),
    Case("non_finite", out(inf_count=2), "output", "error", same),
    Case("overflow_risk", mod(L, max=4e19), L, "warning", mod(L, max=1e18)),
    Case(
        "overflow_risk", mod(L, max=100.0, dtype="float16"), L, "warning", mod(L, max=60.0, dtype="float16")
    ),
    Case("dead_layer", mod(L, rms=0.0), L, "error", mod(L, rms=1e-5)),
    Case("dead_layer", mod("lifter.conv", rms=1e-7), "lifter.conv", "error", mod("lifter.conv", rms=1e-5)),
    Case(
        "dead_channels",
        mod(L, dead_channel_fraction=0.0625),
        L,
        "warning",
        mod("blocks.1", dead_channel_fraction=0.5),
    ),
    Case(
        "dead_channels",
        mod(ACT, dead_channel_fraction=0.9),
        ACT,
        "warning",
        mod(ACT, dead_channel_fraction=0.6),
    ),
    Case(
        "constant_channels",
        mod(L, constant_channel_fraction=0.0625),
        L,
        "warning",
        mod(L, constant_channel_fraction=0.0625, dead_channel_fraction=0.0625),
    ),
    Case("constant_channels", mod(L, constant_channel_fraction=1.0), L, "error", same),
    Case(
        "input_independent",
        all_of(
            *(mod(f"blocks.2{part}", relative_sample_variation=1e-5) for part in (".local", ".act", "")),
            mod("head", relative_sample_variation=1e-5),
            out(relative_sample_variation=1e-5),
        ),
        "blocks.2.local",
        "error",
        mod("blocks.2", relative_sample_variation=1e-5),
    ),
    Case(
        "input_independent",
        mod(S, relative_sample_variation=0.0),
        S,
        "warning",
        mod(ACT, relative_sample_variation=0.0),
    ),
    Case(
        "input_independent",
        mod(L, relative_sample_variation=0.1),
        L,
        "warning",
        mod(L, relative_sample_variation=0.4),
        {"baseline": same},
    ),
    # Rounding errors of a layer that is given the same for every sample, such as coordinates.
    Case(
        "input_independent",
        mod(L, relative_sample_variation=1e-5),
        L,
        "warning",
        mod("head", relative_sample_variation=0.0),
        {"baseline": mod("head", relative_sample_variation=1e-8)},
    ),
    Case(
        "constant_output",
        out(dc_fraction=0.95),
        "output",
        "warning",
        out(dc_fraction=0.85),
        {"baseline": same},
    ),
    Case(
        "local_branch_dead",
        block(1, spectral_local_ratio=8.0, spectral_share=0.98),
        "blocks.1",
        "warning",
        block(1, spectral_local_ratio=4.0, spectral_share=0.94),
        {"baseline": same},
    ),
    Case("heavy_tail", mod(L, tail_ratio=40.0), L, "warning", mod(L, tail_ratio=10.0), {"baseline": same}),
    Case("heavy_tail", mod(L, max=25.0), L, "warning", mod(L, max=10.0), {"baseline": same}),
    Case(
        "exploding_activations",
        all_of(every("block", gain=5.0), mod("blocks.0", rms=12.0)),
        "blocks.0",
        "warning",
        # What starts small grows by learning, within three times the scales of the network.
        every("block", gain=5.0),
        {"baseline": same},
    ),
    Case(
        "vanishing_activations",
        every("block", gain=0.2),
        "blocks.0",
        "warning",
        every("block", gain=0.4),
        {"baseline": same},
    ),
    Case("constant_output", out(dc_fraction=1.0), "output", "error", out(dc_fraction=1 - 1e-6)),
    Case(
        "constant_output",
        out(constant_channel_fraction=1.0),
        "output",
        "error",
        out(constant_channel_fraction=0.5),
    ),
    Case(
        "spectral_branch_dead",
        block(1, spectral_share=0.0),
        "blocks.1",
        "error",
        block(1, spectral_share=1e-7),
    ),
    Case(
        "local_branch_dead",
        block(1, spectral_share=1.0),
        "blocks.1",
        "warning",
        block(1, spectral_share=1 - 1e-7),
    ),
    Case(
        "spectral_branch_weak",
        block(1, spectral_local_ratio=0.02),
        "blocks.1",
        "warning",
        every("block", spectral_local_ratio=0.002),
    ),
    Case(
        "spectral_branch_weak",
        every("block", spectral_local_ratio=0.15),
        "blocks.0",
        "warning",
        every("block", spectral_local_ratio=0.3),
        {"baseline": same},
    ),
    Case(
        "branch_cancellation",
        block(1, branch_cosine=-0.99, branch_coherence=0.05),
        "blocks.1",
        "warning",
        block(1, branch_cosine=-0.99, branch_coherence=0.5),
    ),
    Case(
        "identity_block",
        block(1, update_ratio=0.0),
        "blocks.1",
        "warning",
        every("block", update_ratio=0.001),
    ),
    Case("identity_block", block(1, update_ratio=0.01), "blocks.1", "warning", block(1, update_ratio=0.02)),
    Case(
        "identity_block",
        every("block", update_ratio=0.02),
        "blocks.0",
        "warning",
        every("block", update_ratio=0.2),
        {"baseline": same},
    ),
    Case(
        "exploding_activations",
        all_of(block(1, gain=12.0), mod("blocks.1", rms=12.0)),
        "blocks.1",
        "warning",
        block(1, gain=12.0),
    ),
    Case(
        "exploding_activations",
        all_of(every("block", gain=10.0), mod("blocks.2", rms=20.0)),
        "blocks.0",
        "warning",
        every("block", gain=9.0),
    ),
    Case("exploding_activations", mod(L, rms=500.0), L, "warning", mod(L, rms=200.0)),
    Case("exploding_activations", out(rms=2e4), "output", "error", out(rms=8e3)),
    # Where a layer before it explodes, that layer is the error.
    Case("exploding_activations", all_of(mod(L, rms=500.0), out(rms=6e5)), L, "error", mod(L, rms=500.0)),
    # The targets are that large.
    Case("exploding_activations", out(rms=6e5), "output", "error", out(rms=5e4), {"baseline": out(rms=6e3)}),
    Case("exploding_activations", out(rms=6e5), "output", "error", all_of(out(rms=6e5), inp(rms=1e3))),
    Case("exploding_activations", mod(L, rms=40.0), L, "warning", mod(L, rms=6.0), {"baseline": same}),
    Case(
        "vanishing_activations",
        all_of(block(1, gain=0.05), mod("blocks.1", rms=0.02)),
        "blocks.1",
        "warning",
        block(1, gain=0.05),
    ),
    Case("vanishing_activations", mod(L, rms=1e-4), L, "warning", mod(L, rms=2e-3)),
    Case("vanishing_activations", mod("lifter", rms=1e-4), "lifter", "warning", mod("lifter", rms=2e-3)),
    Case("vanishing_activations", mod(L, rms=0.02), L, "warning", mod(L, rms=0.4), {"baseline": same}),
    Case(
        "saturated_activation",
        mod(ACT, class_name="Tanh", p05=-1.0, p50=1.0, p95=1.0),
        ACT,
        "warning",
        mod(ACT, class_name="Tanh", p05=-1.0, p50=0.5, p95=1.0),
    ),
    Case(
        "saturated_activation",
        mod(ACT, class_name="Sigmoid", p05=0.0, p50=0.9999, p95=1.0),
        ACT,
        "warning",
        mod(ACT, class_name="Sigmoid", p05=0.0, p50=0.9, p95=1.0),
    ),
    Case("saturated_activation", mod(ACT, p01=-1e-5, p99=0.0), ACT, "warning", mod(ACT, p01=-0.1, p99=0.0)),
    Case("drifting_mean", mod(L, mean=-30.0, std=1.0), L, "warning", mod("head", mean=-30.0, std=1.0)),
    Case("drifting_mean", mod(L, mean=6.0), L, "warning", mod(L, mean=4.0), {"baseline": same}),
    Case(
        "heavy_tail",
        mod(L, tail_ratio=300.0),
        L,
        "warning",
        all_of(mod(L, tail_ratio=300.0), inp(tail_ratio=100.0)),
    ),
    Case("heavy_tail", mod(L, max=100.0), L, "warning", mod(ACT, max=100.0)),
    Case(
        "mode_truncation",
        mod(S, truncated_energy_fraction=0.6),
        S,
        "note",
        mod(S, truncated_energy_fraction=0.4),
    ),
    Case("mode_truncation", mod(S, truncated_energy_fraction=0.4), S, "warning", same, {"baseline": same}),
    Case("unused_modes", mod(S, unused_weight_fraction=0.7), S, "note", mod(S, unused_weight_fraction=0.1)),
    Case("dead_modes", mod(S, dead_mode_fraction=0.1), S, "warning", mod(S, dead_mode_fraction=0.001)),
    Case("one_sided_spectrum", mod(S, one_sidedness=1e-14), S, "warning", mod(S, one_sidedness=0.1)),
    Case(
        "one_sided_spectrum",
        every("spectral", one_sidedness=0.0),
        "blocks.0.spectral",
        "note",
        mod(L, one_sidedness=0.0),
    ),
    Case(
        "one_sided_spectrum",
        every("spectral", one_sidedness=0.0),
        "blocks.0.spectral",
        "warning",
        same,
        {"baseline": same},
    ),
    Case(
        "high_frequency_loss",
        out(high_frequency_fraction=0.0),
        "output",
        "note",
        all_of(out(high_frequency_fraction=0.0), inp(high_frequency_fraction=0.0)),
    ),
    Case(
        "high_frequency_loss",
        mod("blocks.1", high_frequency_fraction=5e-4),
        "blocks.1",
        "warning",
        mod(S, high_frequency_fraction=0.0),
    ),
    Case(
        "high_frequency_loss",
        out(high_frequency_fraction=1e-3),
        "output",
        "warning",
        out(high_frequency_fraction=1e-2),
        {"baseline": same},
    ),
    # Noise of an untrained network that training took away.
    Case(
        "high_frequency_loss",
        out(high_frequency_fraction=1e-4),
        "output",
        "warning",
        all_of(out(high_frequency_fraction=1e-4), inp(high_frequency_fraction=1e-5)),
        {"baseline": same},
    ),
    Case(
        "grid_artifact",
        out(bands=(0.5, 0.2, 0.05, 0.01, 0.01, 0.02, 0.21)),
        "output",
        "note",
        out(bands=(0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1)),
    ),
    Case(
        "grid_artifact",
        out(bands=(0.5, 0.2, 0.05, 0.01, 0.01, 0.02, 0.21)),
        "output",
        "warning",
        same,
        {"baseline": same},
    ),
    Case("vanishing_gradient", mod(L, grad_to_weight=1e-10), L, "warning", mod(L, grad_to_weight=1e-8)),
    Case("exploding_gradient", mod(L, grad_to_weight=2000.0), L, "warning", mod(L, grad_to_weight=5.0)),
    Case("exploding_gradient", mod(L, grad_nonfinite_count=1, grad_to_weight=None), L, "error", same),
    Case(
        "branch_gradient_imbalance",
        block(1, spectral_local_gradient_ratio=0.01),
        "blocks.1",
        "warning",
        block(1, spectral_local_gradient_ratio=0.1),
    ),
    Case(
        "branch_gradient_imbalance",
        every("block", spectral_local_gradient_ratio=30.0),
        "blocks.2",
        "warning",
        every("block", spectral_local_gradient_ratio=10.0),
        {"baseline": same},
    ),
    Case(
        "stalled_update",
        mod(L, grad_norm=0.0, grad_to_weight=0.0),
        L,
        "warning",
        mod(L, grad_norm=1e-6, grad_to_weight=1e-7),
    ),
    Case(
        "collapse_at_step",
        steps(same, mod(L, rms=1.2), mod(L, rms=30.0), mod(L, rms=40.0)),
        "blocks.1",
        "error",
        steps(same, mod(L, rms=1.2), mod(L, rms=30.0), mod(L, rms=1.1)),
    ),
    # From the first report on, learning may change every layer a lot.
    Case(
        "collapse_at_step",
        steps(same, mod(L, rms=130.0), mod(L, rms=140.0)),
        "blocks.1",
        "error",
        steps(same, mod(L, rms=70.0), mod(L, rms=80.0)),
    ),
    Case(
        "trend",
        steps(*(mod(L, sample_variation=v) for v in (0.9, 0.6, 0.4))),
        L,
        "note",
        steps(*(mod(L, sample_variation=v) for v in (0.9, 0.6, 0.9))),
    ),
    Case(
        "trend",
        steps(*(mod(L, sample_variation=v) for v in (0.9, 0.3, 0.05))),
        L,
        "warning",
        steps(*(mod(L, sample_variation=v) for v in (0.05, 0.05, 0.05))),
    ),
]


def found(case: Case, change: Callable[[CaptureRecord], Record]) -> list[Any]:
    made = change(example_records.healthy_record())
    records = [made] if isinstance(made, CaptureRecord) else made
    against = {name: make(example_records.healthy_record()) for name, make in case.against.items()}
    return list(diagnose(*records, rules=[case.rule], **against))


def spelled(value: Any) -> str:
    return f"{value.rule}-{value.severity}-{value.layer}{'-baseline' if value.against else ''}"


@pytest.mark.parametrize("case", CASES, ids=spelled)
def test_a_rule_fires_at_the_layer(case):
    findings = found(case, case.fires)
    assert (findings[0].rule, findings[0].layer, findings[0].severity) == (
        case.rule,
        case.layer,
        case.severity,
    )
    assert findings[0].message
    assert findings[0].advice
    assert findings[0].evidence
    assert all(value is not None for value in findings[0].evidence.values())


@pytest.mark.parametrize("case", CASES, ids=spelled)
def test_a_rule_is_silent_close_by(case):
    assert [f for f in found(case, case.silent) if f.severity == case.severity] == []


@pytest.mark.parametrize("case", [case for case in CASES if not case.by_shape], ids=spelled)
def test_a_rule_skips_null_statistics(case):
    def emptied(record: CaptureRecord) -> Record:
        made = case.fires(record)
        if isinstance(made, CaptureRecord):
            return example_records.remove_numbers(made)
        return [example_records.remove_numbers(one) for one in made]

    assert found(case, emptied) == []


def test_a_healthy_record_has_no_finding():
    assert diagnose(example_records.healthy_record()) == ()
