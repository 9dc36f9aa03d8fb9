"""What the overview text says, of one record and of those before it."""

import html
import re
from dataclasses import replace

import pytest

from fno_telemetry.findings import NOTHING_FOUND
from fno_telemetry.quantities import Quantity
from fno_telemetry.records import AccuracyRecord, FrozenMapping
from fno_telemetry.sinks.tensorboard.overview_text import Earlier, overview_text


def told(record, *before) -> str:
    """The text, with entities as the characters that the page shows."""
    earlier = Earlier()
    for each in before:
        earlier.add(each)
    return html.unescape(overview_text(record, earlier))


@pytest.fixture
def diagnosed(record, examples):
    """Make a record at a step with a cause for each severity, called by the step."""

    def make(step, *severities):
        [cause, *_] = examples.add_findings(record).findings
        findings = tuple(
            replace(
                cause,
                id=f"{severity}{step}",
                layer=f"layer.{step}",
                severity=severity,
                message=f"is at {severity}",
                advice=f"advice at {step}",
            )
            for severity in severities
        )
        return replace(examples.at_step(record, step), findings=findings)

    return make


def test_it_begins_with_the_verdict(record, diagnosed, examples):
    assert told(record).startswith("**step 1000: not diagnosed.** Watch with `diagnose=True`, or run ")
    captured = replace(record, training=FrozenMapping())
    assert told(captured).startswith("**step 1000: not diagnosed.** Capture with `--diagnose`, or run ")
    assert "`findings`" not in told(record)
    assert told(diagnosed(7)).startswith(f"**step 7: {NOTHING_FOUND}**\n")
    assert told(diagnosed(7, "error", "note", "note")).startswith("**step 7: 1 error, 2 notes**\n")
    assert told(examples.at_step(record, None)).startswith("**step unknown: ")


def test_in_training_it_has_the_loss_and_the_accuracy(record):
    assert "relative L2" not in told(record)
    given = replace(
        record,
        summary=FrozenMapping({**record.summary, "loss": 0.125}),
        accuracy=AccuracyRecord(stats=FrozenMapping({"relative_l2": 0.75, "output_to_target_rms": None})),
        training=FrozenMapping({"stage": "train"}),
    )
    assert "\n\nLoss 0.125, relative L2 error 0.75.\n\n" in told(given)
    assert told(given).startswith("**step 1000: not diagnosed.** Watch with `diagnose=True`, or run ")


def test_the_most_severe_finding_comes_with_layer_message_and_advice(diagnosed):
    text = told(diagnosed(7, "note", "error", "warning"))
    assert "- **error: layer.7** is at error (dead_layer)" in text
    assert "\n    - advice at 7\n" in text
    assert "is at warning" not in text


@pytest.mark.parametrize(
    ("before", "now", "shown"),
    [
        ([(10, "error"), (20, "error")], (30, "note"), "error at step 10: layer.10"),
        ([(10, "warning"), (20, "error")], (30,), "error at step 20: layer.20"),
        ([(10, "warning")], (20, "error"), "error: layer.20"),
        ([(10, "error")], (20, "error"), "error at step 10: layer.10"),
        # A note that still holds is in the record itself.
        ([(10, "note")], (20, "note"), "note: layer.20"),
    ],
)
def test_the_earliest_of_the_most_severe_findings_of_all_steps_is_read_first(diagnosed, before, now, shown):
    text = told(diagnosed(*now), *(diagnosed(*each) for each in before))
    assert re.findall(r"^- \*\*(.*)\*\*", text, re.MULTILINE) == [shown]


def test_earlier_steps_with_an_error_or_a_warning_are_named(diagnosed):
    before = [diagnosed(step, "error", *["warning"] * (step == 3)) for step in range(12)]
    steps = ", ".join(f"step {step}" for step in range(8))
    expected = f"Before that: error at {steps} and 4 more; warning at step 3."
    assert expected in told(diagnosed(20), *before)
    assert "Before that" not in told(diagnosed(20), diagnosed(10, "note"), diagnosed(15))


def test_layers_at_the_worse_end_of_a_number_are_named_at_both_where_neither_is_worse(record, examples):
    finite = examples.with_stats(record, "lifter", nan_count=0, inf_count=0, dead_channel_fraction=0.5)
    finite = examples.with_stats(finite, "fno_blocks.1", low_frequency_fraction=0.01, sample_variation=0.25)
    finite = replace(finite, quantities=(Quantity(name="peak", title="largest |x|", worse="up"),))
    for name, peak in (("lifter", 8.0), ("fno_blocks.1", 2.0)):
        finite = examples.with_stats(finite, name, peak=peak)
    text = told(finite)
    smallest, largest = record.module("heads", item="0"), record.module("fno_blocks.0.local_conv")
    listed = [line.removeprefix("- ") for line in text.splitlines() if re.match(r"- \w+ \(", line)]
    assert listed == [
        "low_frequency_fraction (energy share at or below 1/8 cycle per grid point): "
        "lowest 0.01 in fno_blocks.1, highest 0.125 in lifter",
        "spectral_share (energy share of the spectral branch): "
        "lowest 0.0588 in fno_blocks.0, highest 0.36 in fno_blocks.10",
        "update_ratio (relative change of a block's input): lowest 0.1 in fno_blocks.0",
        "gain (rms of a block's output over that of its input): "
        "lowest 1.1 in fno_blocks.0, highest 1.4 in spec_encoder#0",
        f"rms (root mean square): lowest {smallest.stats['rms']:.3g} in heads[0], "
        f"highest {largest.stats['rms']:.3g} in fno_blocks.0.local_conv",
        "sample_variation (variation between samples): lowest 0.25 in fno_blocks.1",
        "dead_channel_fraction (share of dead channels): highest 0.5 in lifter",
        "peak (largest |x|): highest 8 in lifter",
    ]


def test_layers_with_values_that_are_not_finite_are_named(record):
    assert "NaN or infinity in lifter, fno_blocks.0.spectral, " in told(record)
    finite = [
        replace(module, stats=type(module.stats)({**module.stats, "nan_count": 0, "inf_count": 0}))
        for module in record.modules
    ]
    assert "NaN or infinity" not in told(replace(record, modules=tuple(finite)))


def test_it_says_where_to_look_next(record):
    text = told(replace(record, findings=()))
    for where in ("(#custom_scalars&_smoothingWeight=0)", "(#histograms)", "`findings`", "`report`"):
        assert where in text
    assert "fno-telemetry diagnose DIR" in text


def test_no_name_has_a_meaning_in_markdown(record, examples, diagnosed):
    found = diagnosed(7, "error")
    awkward = replace(found.findings[0], layer=examples.AWKWARD, message=examples.AWKWARD)
    raw = overview_text(replace(found, findings=(awkward,)), Earlier())
    assert examples.AWKWARD in told(replace(found, findings=(awkward,)))
    assert "<b>" not in raw
    assert "[x](y)" not in raw
