"""What of a record becomes a row, a depth profile and a configuration: no wandb needed."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest

from fno_telemetry import keys
from fno_telemetry.records import CaptureRecord, FrozenMapping, Histogram
from fno_telemetry.sinks.tensorboard.summaries import scalars
from fno_telemetry.sinks.wandb.rows import (
    MOST_BINS,
    as_bins,
    config,
    depth_rows,
    model_scalars,
    row,
)


@pytest.fixture(scope="module")
def large(record: CaptureRecord, examples) -> CaptureRecord:
    return examples.large(record)


def test_with_full_detail_a_row_holds_every_number_under_the_keys_that_tensorboard_has(record):
    made = row(record, "full")
    curves = {key: value for key, value in made.scalars.items() if "/" in key}
    assert dict(scalars(record)) == curves
    assert made.scalars["checkpoint_step"] == 1000
    assert made.left_out == ()


def test_a_row_without_a_step_has_none(record, examples):
    assert "checkpoint_step" not in row(examples.at_step(record, None)).scalars


def test_bins_are_the_records_without_the_empty_ones_at_both_ends(record):
    made = row(record, "full").histograms
    for module in record.modules:
        for kind in ("histogram", "log_histogram"):
            found = getattr(module, kind)
            bins = [(*edges, n) for edges, n in zip(pairwise(found.edges), found.counts, strict=True)]
            filled = [index for index, (*_, count) in enumerate(bins) if count]
            key = keys.record_key(kind, module)
            assert bool(filled) == (key in made)
            if filled:
                counts, edges = made[key]
                expected = bins[filled[0] : filled[-1] + 1]
                assert expected == [(*e, n) for e, n in zip(pairwise(edges), counts, strict=True)]


@pytest.mark.parametrize("number", [1, 511, 512, 513, 2000])
def test_bins_are_joined_where_wandb_would_refuse_them(number):
    edges = tuple(float(index) for index in range(number + 1))
    counts, kept = as_bins(Histogram(edges, tuple(range(1, number + 1)), 0, 0))
    assert len(counts) <= MOST_BINS
    assert (sum(range(1, number + 1)), 0.0, float(number)) == (sum(counts), kept[0], kept[-1])
    assert [sum(range(int(a) + 1, int(b) + 1)) for a, b in pairwise(kept)] == counts


def test_model_scalars_are_of_the_whole_model(record, examples):
    lifted = examples.with_stats(record, "lifter", low_frequency_fraction=0.75, nan_count=0, inf_count=0)
    found = model_scalars(lifted)
    assert {
        "input_sample_variation": 0.9,
        "output_sample_variation": 0.9,
        "output_rms": lifted.output.stats["rms"],
        "output_low_frequency_fraction": 0.125,
        "lifting_low_frequency_fraction": 0.75,
        "smallest_update_ratio": 0.1,
        "largest_update_ratio": 0.4,
        "smallest_spectral_share": pytest.approx(1 / 17),
        "largest_dead_channel_fraction": 1.0,
        "layers_with_nan_or_inf": len(lifted.modules) - 1,
    } == found
    assert all(name.isidentifier() for name in found)


def test_the_loss_of_a_capture_is_a_number_of_the_whole_model(record):
    # Not called `loss`, like the curve that a training loop logs into its own run.
    given = replace(record, summary=FrozenMapping({**record.summary, "loss": 0.25}))
    assert model_scalars(given)["captured_loss"] == 0.25
    assert "loss" not in row(given).scalars
    for nothing in (None, float("nan")):
        given = replace(record, summary=FrozenMapping({**record.summary, "loss": nothing}))
        assert "captured_loss" not in model_scalars(given)


def test_a_model_without_blocks_or_lifting_has_fewer_scalars(record):
    bare = replace(record, modules=(), blocks=(), input=None, output=None, outputs=())
    assert model_scalars(bare) == {"layers_with_nan_or_inf": 0}


def test_a_depth_profile_follows_the_order_of_completion(record):
    shuffled = replace(record, modules=record.modules[::-1])
    rows = list(depth_rows(shuffled, "full"))
    assert list(range(len(record.modules))) == [each["depth"] for each in rows]
    assert [keys.record_place(module) for module in record.modules] == [each["layer"] for each in rows]
    assert [module.stats["rms"] for module in record.modules] == [each["depth/rms"] for each in rows]
    assert "depth/tail_ratio" not in rows[[m.name for m in record.modules].index("dead")]


def test_the_config_of_an_experiment_holds_what_its_checkpoints_share(record):
    timed = replace(record, provenance=FrozenMapping({**record.provenance, "time": "now", "seed": 3}))
    shared, whole = config(timed, of_experiment=True), config(timed, of_experiment=False)
    assert "checkpoint_step" not in shared
    assert shared["provenance"] == {"versions": {"torch": "2.13.0", "numpy": "2.4.6"}, "seed": 3}
    assert (whole["checkpoint_step"], whole["provenance"]["time"]) == (1000, "now")
    assert shared["n_parameters"] == 656_002


def test_200_layers_fit_into_the_row_that_is_promised(large):
    made = row(large, "full")
    histograms = {
        key: {"_type": "histogram", "values": counts, "bins": edges}
        for key, (counts, edges) in made.histograms.items()
    }
    size = len(json.dumps({**made.scalars, **histograms}))
    assert made.left_out == ()
    assert len(made.scalars) + len(histograms) < 8_000
    assert size < 1_500_000


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (150, []),
        (700, ["rms", "abs_p99"]),
        (2_000, ["rms", "abs_p99", "histogram"]),
        (6_000, ["rms", "abs_p99", "histogram", "p50"]),
    ],
)
def test_where_keys_are_short_the_least_telling_statistics_are_left_out(large, most, expected):
    made = row(large, "full", most)
    kept = {key.partition("/")[0] for key in (*made.scalars, *made.histograms) if "/" in key}
    assert len(made.scalars) + len(made.histograms) <= most
    assert not kept & set(made.left_out)
    samples = ("rms", "abs_p99", "histogram", "p50", "another_fraction_6")
    assert expected == [name for name in samples if name in kept]
    assert all((name in kept) != (name in made.left_out) for name in samples)


def test_which_statistics_have_room_does_not_depend_on_the_values(large):
    undefined = tuple(
        replace(module, stats=FrozenMapping(dict.fromkeys(module.stats))) for module in large.modules
    )
    assert (
        row(large, "full", 3_000).left_out == row(replace(large, modules=undefined), "full", 3_000).left_out
    )
