"""Rules about causes, condition by condition: where they speak and close by, and what comes first."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from fno_telemetry.diagnosis.example_records import (
    add_target,
    add_training,
    change_block,
    change_input,
    change_module,
    change_output,
    healthy_record,
    make_series,
    set_step,
)
from fno_telemetry.diagnosis.findings import diagnose
from fno_telemetry.records import CaptureRecord, freeze_mapping

Record = CaptureRecord | Sequence[CaptureRecord]


def missed(error: float = 0.95, **changes: Any) -> CaptureRecord:
    """Return the record of a network that misses its target."""
    return add_target(change_input(healthy_record(), **changes), error_to_mean_predictor=error)


def trained(record: CaptureRecord) -> CaptureRecord:
    return set_step(record, 100)


def weak(ratio: float, blocks: int = 3) -> CaptureRecord:
    record = healthy_record()
    for index in range(blocks):
        record = change_block(record, index, spectral_local_ratio=ratio, spectral_share=ratio**2)
    return record


def cutting(share: float, error: float) -> CaptureRecord:
    record = healthy_record()
    for index in range(3):
        record = change_module(record, f"blocks.{index}.spectral", truncated_energy_fraction=share)
    return add_target(record, error_to_mean_predictor=error)


def of_blocks(**stats: float) -> CaptureRecord:
    record = change_module(healthy_record(), "blocks.2", rms=30.0)
    for index in range(3):
        record = change_block(record, index, **stats)
    return record


def complex_output(size: float, error: float) -> CaptureRecord:
    record = add_target(healthy_record(), error_to_mean_predictor=error, output_to_target_rms=size)
    assert record.target is not None
    return replace(record, target=replace(record.target, values_of="|z|"))


def varying(output: float, target: float, error: float) -> CaptureRecord:
    record = change_output(healthy_record(), sample_variation=output)
    return add_target(record, target={"sample_variation": target}, error_to_mean_predictor=error)


def steps(updates: Sequence[float | None], losses: Sequence[float | None]) -> list[CaptureRecord]:
    records = []
    for update, loss in zip(updates, losses, strict=True):
        record = healthy_record()
        for module in record.modules:
            if module.stats.get("weight_norm") is not None:
                record = change_module(record, module.name, update_to_weight=update)
        records.append(add_training(record, loss=loss))
    return make_series(*records)


def moving(moved: dict[str, float], update: float) -> list[CaptureRecord]:
    record = healthy_record()
    for module in record.modules:
        if module.stats.get("weight_norm") is not None:
            record = change_module(record, module.name, update_to_weight=update)
    parameters = {name: {"moved": value} for name, value in moved.items()}
    plain = replace(add_training(record, parameters), parameters=())
    few = [each for each in add_training(record, parameters).parameters if each.name in parameters]
    return make_series(*(replace(plain, parameters=tuple(few)) for _ in range(3)))


def shifted(error: float, last: float) -> CaptureRecord:
    """A target far from zero, an output at its scale, and a last layer of this rms."""
    record = change_output(change_module(healthy_record(), "head", rms=last), rms=280.0)
    return add_target(
        record, target={"rms": 280.0, "mean": 279.7, "std": 11.7}, error_to_mean_predictor=error
    )


CASES: list[tuple[str, Callable[[], Record], Callable[[], Record]]] = [
    ("unnormalised_input", lambda: missed(rms=2e3), lambda: missed(rms=50.0)),
    ("unnormalised_input", lambda: missed(rms=1e-3), lambda: set_step(missed(rms=1e-3), 0)),
    (
        "input_channel_scale",
        lambda: missed(channel_rms=(1.0, 9e3)),
        lambda: missed(0.2, channel_rms=(1.0, 9e3)),
    ),
    ("spectral_branch_weak", lambda: trained(weak(0.01)), lambda: weak(0.01)),
    ("spectral_branch_weak", lambda: trained(weak(0.01)), lambda: trained(weak(0.05))),
    (
        "dead_channels",
        lambda: trained(change_module(healthy_record(), "blocks.1.act", dead_channel_fraction=0.8)),
        lambda: change_module(healthy_record(), "blocks.1.act", dead_channel_fraction=0.8),
    ),
    (
        "dead_channels",
        lambda: trained(change_module(healthy_record(), "blocks.1.act", dead_channel_fraction=0.8)),
        lambda: trained(
            change_module(healthy_record(), "blocks.1.act", dead_channel_fraction=0.8, class_name="ReLU")
        ),
    ),
    # A network that itself has to reach a mean of 24 deviations, and one that adds it at its end.
    ("target_scale", lambda: shifted(0.3, last=280.0), lambda: shifted(0.1, last=280.0)),
    ("target_scale", lambda: shifted(0.3, last=280.0), lambda: shifted(0.3, last=1.0)),
    ("exploding_activations", lambda: of_blocks(gain=5.0), lambda: of_blocks(gain=4.0)),
    ("amplitude_or_phase", lambda: complex_output(1.0, 2.0), lambda: complex_output(1.0, 1.0)),
    ("amplitude_or_phase", lambda: complex_output(1.0, 2.0), lambda: complex_output(0.4, 2.0)),
    ("mean_predictor", lambda: varying(0.1, 0.5, 0.5), lambda: varying(0.1, 0.5, 0.2)),
    ("mean_predictor", lambda: varying(0.1, 0.5, 0.5), lambda: varying(0.3, 0.5, 0.5)),
    # A sudden step, though the loss is as before, and a loss that diverges.
    (
        "updates_too_large",
        lambda: steps((0.01, 0.01, 0.01, 0.2), (1.0, 0.8, 0.6, 0.5)),
        lambda: steps((0.01, 0.01, 0.2), (1.0, 0.8, 0.5)),
    ),
    (
        "updates_too_large",
        lambda: steps((0.01, 0.01), (1.0, 4.0)),
        lambda: steps((0.01, 0.01, 0.01), (1.0, 4.0, 0.5)),
    ),
    (
        "updates_too_large",
        lambda: steps((0.01, None), (1.0, None)),
        lambda: steps((None, None), (None, None)),
    ),
    (
        "loss_stopped",
        lambda: steps((1e-2, 1e-2, 1e-7, 1e-7), (1.0, 1.0, 1.0, 1.0)),
        lambda: steps((0.0, 0.0, 0.0, 0.0), (1.0, 1.0, 1.0, 1.0)),
    ),
]


@pytest.mark.parametrize(("name", "fires", "silent"), CASES)
def test_a_rule_speaks_where_it_should_and_not_close_by(name, fires, silent):
    for make, speaks in ((fires, True), (silent, False)):
        made = make()
        records = [made] if isinstance(made, CaptureRecord) else made
        loud = {finding.rule for finding in diagnose(*records) if finding.severity != "note"}
        assert (name in loud) is speaks


def test_what_modes_cut_off_from_the_input_is_a_note_though_the_target_is_missed():
    # An input may be rougher than its target: whether the target needs more modes is told by its own bands.
    found = [each for each in diagnose(cutting(0.8, 0.6)) if each.rule == "mode_truncation"]
    assert {each.severity for each in found} == {"note"}


def test_parameters_that_stand_still_in_part_are_no_matter_of_the_rate():
    nothing, a_part = (
        [each for each in diagnose(*moving(moved, 0.0)) if each.rule == "parameters_stand_still"]
        for moved in ({"a": 1e-6, "b": 1e-6, "c": 1e-6}, {"a": 0.0, "b": 0.0, "c": 0.1})
    )
    assert "rate" in nothing[0].advice and nothing[0].severity == "error"
    assert "rate" not in a_part[0].advice and "2 of 3 parameters" in a_part[0].message


@pytest.mark.parametrize(
    ("ratios", "low", "high"),
    [
        ((0.01, 1.0, 1.0, 1.0), 0.0, 1 / 16),
        ((1.0, 0.01, 1.0, 1.0), 1 / 16, 1 / 8),
        ((1.0, 1.0, 0.01, 0.01), 1 / 8, 1 / 2),
        ((0.01, 1.0, 1.0, 0.01), 0.0, 1 / 16),  # of two bands the one with the larger error
    ],
)
def test_a_missing_band_is_named_by_its_ends(ratios, low, high):
    found = next(
        each for each in diagnose(add_target(healthy_record(), ratios)) if each.rule == "missing_band"
    )
    assert (found.evidence["from_frequency"], found.evidence["to_frequency"]) == (low, high)


def test_a_few_percent_of_the_target_may_be_missing():
    record = add_target(healthy_record(), (1.0, 1.0, 0.01, 0.01))
    assert record.accuracy is not None and record.accuracy.bands is not None
    bands = replace(record.accuracy.bands, target=(0.0, 0.5, 0.37, 0.08, 0.05))
    smooth = replace(record, accuracy=replace(record.accuracy, bands=bands))
    assert [("missing_band" in {each.rule for each in diagnose(one)}) for one in (record, smooth)] == [
        True,
        False,
    ]


def test_what_a_run_lacks_of_its_target_at_its_beginning_is_a_note():
    begins, learned = (
        add_target(healthy_record(), error_to_mean_predictor=error, output_to_target_rms=size)
        for error, size in ((1.0, 0.05), (0.3, 0.9))
    )
    series = [set_step(one, step) for step, one in enumerate((begins, begins, learned, learned))]
    assert {each.severity for each in diagnose(*series) if each.rule == "mean_predictor"} == {"note"}
    assert {each.severity for each in diagnose(*series[:2]) if each.rule == "mean_predictor"} == {"warning"}


def test_an_input_that_a_network_copes_with_later_is_a_note():
    begins, learned = missed(1.0, channel_rms=(1.0, 9e3)), missed(0.2, channel_rms=(1.0, 9e3))
    series = [set_step(one, step + 1) for step, one in enumerate((begins, begins, learned))]
    assert {each.severity for each in diagnose(*series) if each.rule == "input_channel_scale"} == {"note"}


def test_growth_since_a_baseline_comes_after_what_says_more():
    baseline = add_target(healthy_record(), error_to_mean_predictor=0.2)
    sick = missed(1.0)
    sick = change_module(sick, "blocks.1.local", rms=0.1)
    found = [each.rule for each in diagnose(sick, baseline=baseline) if each.follows_from is None]
    assert found.index("mean_predictor") < found.index("vanishing_activations")


def test_what_learned_since_its_baseline_is_not_compared_with_it():
    before, after = (
        add_target(healthy_record(), error_to_mean_predictor=error, output_to_target_rms=1.0)
        for error in (0.6, 0.3)
    )
    after = change_module(after, "blocks.1.local", rms=0.1)
    assert [each for each in diagnose(after, baseline=before) if each.severity != "note"] == []


@pytest.mark.parametrize("weights", ["untrained", "given"])
def test_batch_statistics_of_a_new_network_are_not_judged(weights):
    record = change_module(
        healthy_record(), "lifter.conv", class_name="BatchNorm2d", rms=9.0, weight_norm=4.0
    )
    record = replace(record, summary=freeze_mapping({**record.summary, "weights": weights}))
    found = {each.rule for each in diagnose(record)}
    assert ("batch_statistics" in found) is (weights == "given")


@pytest.mark.parametrize(
    ("rms", "trains", "speaks"), [(1.1, False, True), (1.1, True, False), (2.0, True, True)]
)
def test_a_dropout_may_be_on_in_training_only_and_not_too_strong(rms, trains, speaks):
    record = change_module(healthy_record(), "lifter.conv", class_name="Dropout", rms=rms, input_rms=1.0)
    record = add_training(record) if trains else record
    assert ("strong_dropout" in {each.rule for each in diagnose(record)}) is speaks


def test_a_checkpoint_that_was_loaded_whole_is_no_part():
    baseline = add_target(healthy_record(), error_to_mean_predictor=0.1)
    whole = add_target(healthy_record(), error_to_mean_predictor=0.9)
    other = whole
    for module in other.modules:
        if module.stats.get("weight_norm") is not None:
            other = change_module(other, module.name, weight_norm=2.0)
    part = change_module(whole, "blocks.1.local", weight_norm=2.0)
    found = [
        "weights_in_part" in {e.rule for e in diagnose(o, baseline=baseline)} for o in (whole, other, part)
    ]
    assert found == [False, False, True]


@pytest.mark.parametrize(
    ("shape", "fraction", "error", "speaks"),
    [
        ((8, 1, 32, 32), 0.4, 0.3, True),  # rougher
        ((8, 1, 64, 64), 0.4, 0.3, False),  # as a finer grid is
        ((8, 1, 32, 32), 0.1, 1.5, True),  # worse than the mean
        ((8, 1, 32, 32), 0.1, 0.9, False),
    ],
)
def test_a_test_may_differ_by_more_than_its_scale(shape, fraction, error, speaks):
    training = add_target(change_input(healthy_record(), shape=(8, 1, 32, 32)), error_to_mean_predictor=0.2)
    test = change_input(healthy_record(), shape=shape, high_frequency_fraction=fraction)
    test = add_target(test, error_to_mean_predictor=error)
    assert ("test_input" in {each.rule for each in diagnose(training, test=test)}) is speaks
