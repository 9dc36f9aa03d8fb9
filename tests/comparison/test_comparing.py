"""A comparison names what changed, where first, since when, and whether that is worse."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fno_telemetry.comparison.comparing import compare
from fno_telemetry.comparison.pairs import compare_pair, is_worse
from fno_telemetry.comparison.thresholds import Thresholds, read_thresholds
from fno_telemetry.comparison.trends import find_trends
from fno_telemetry.errors import OptionError, ReportError
from fno_telemetry.records import BlockRecord, CaptureRecord, FrozenMapping, ModuleRecord, freeze_mapping

MakeModule = Callable[..., ModuleRecord]
MakeRecord = Callable[..., CaptureRecord]


def test_a_report_against_itself_is_the_same(make_record: MakeRecord) -> None:
    found = compare(make_record(), make_record())
    assert not found.worse
    assert found.severity is None
    assert found.first_diverging is None
    assert "the same" in found.verdict


def test_the_first_layer_in_execution_order_that_differs_stands_on_top(
    make_module: MakeModule, make_record: MakeRecord
) -> None:
    before = make_record(make_module("z", 0), make_module("a", 1), make_module("m", 2))
    after = make_record(make_module("m", 2, rms=3.0), make_module("a", 1, rms=2.0), make_module("z", 0))
    found = compare(before, after)
    assert found.first_diverging == "a"
    assert [layer.name for layer in found.modules] == ["z", "a", "m"]
    assert not found.worse
    assert found.severity == "note"


@pytest.mark.parametrize(
    ("statistic", "value", "severity"),
    [
        ("nan_count", 3, "error"),
        ("inf_count", 1, "error"),
        ("sample_variation", 0.001, "warning"),
        ("dead_channel_fraction", 0.5, "warning"),
        ("constant_channel_fraction", 0.5, "warning"),
        ("low_frequency_fraction", 0.9, "note"),
        ("negative_fraction", 0.9, "note"),
        ("sample_variation", 0.15, None),
    ],
)
def test_each_statistic_has_its_severity(
    make_module: MakeModule, make_record: MakeRecord, statistic: str, value: float, severity: str | None
) -> None:
    before, after = (
        make_record(make_module("layer0"), make_module("layer1", 1, weight_norm=1.0, **stats))
        for stats in ({}, {statistic: value})
    )
    found = compare(before, after)
    assert found.severity == severity
    assert found.worse == (severity in ("warning", "error"))
    if severity is not None:
        assert found.first_diverging == "layer1"


@pytest.mark.parametrize(("rms", "worse"), [(5.0, False), (20.0, True), (0.01, True)])
def test_a_change_of_scale_by_an_order_of_magnitude_is_worse(
    make_module: MakeModule, make_record: MakeRecord, rms: float, worse: bool
) -> None:
    assert compare(make_record(make_module("a")), make_record(make_module("a", rms=rms))).worse == worse


def test_a_layer_that_comes_to_the_scales_of_its_network_has_learned(
    make_module: MakeModule, make_record: MakeRecord
) -> None:
    untrained = make_record(make_module("a"), make_module("b", 1, rms=0.02))
    assert not compare(untrained, make_record(make_module("a"), make_module("b", 1, rms=2.9))).worse
    assert compare(untrained, make_record(make_module("a"), make_module("b", 1, rms=3.1))).worse
    dead = compare(untrained, make_record(make_module("a"), make_module("b", 1, rms=1e-9)))
    assert dead.worse
    assert dead.first_diverging == "b"


def test_reports_of_networks_that_share_no_layer_are_said_to_share_none(
    make_module: MakeModule, make_record: MakeRecord
) -> None:
    found = compare(*(make_record(make_module(name), step=step) for step, name in enumerate("abc")))
    assert found.verdict == "nothing in common; 1 layers added, 1 removed"
    assert not found.worse


def test_a_faded_branch_and_a_lost_update_are_worse(make_record: MakeRecord) -> None:
    def block(**stats: float) -> tuple[BlockRecord, ...]:
        healthy = {"spectral_share": 0.5, "update_ratio": 0.3, "gain": 1.0}
        return (
            BlockRecord(
                name="b", call=0, spectral=("s",), local=("l",), stats=FrozenMapping({**healthy, **stats})
            ),
        )

    for stats in (
        {"spectral_share": 0.01},
        {"spectral_share": 0.99},
        {"update_ratio": 0.001},
        {"gain": 50.0},
    ):
        found = compare(make_record(blocks=block()), make_record(blocks=block(**stats)))
        assert found.worse, stats
        assert found.first_diverging == "b"
    assert not compare(make_record(blocks=block()), make_record(blocks=block(spectral_share=0.4))).worse


def test_added_and_removed_layers_are_named(make_module: MakeModule, make_record: MakeRecord) -> None:
    found = compare(
        make_record(make_module("a"), make_module("b", 1)), make_record(make_module("b"), make_module("c", 1))
    )
    assert found.added == ("c",)
    assert found.removed == ("a",)
    assert "1 layers added, 1 removed" in found.verdict


def same_as(before: CaptureRecord, after: CaptureRecord) -> dict[str, str | None]:
    return {layer.name: layer.same_as for layer in compare(before, after).modules}


def test_a_module_names_the_earlier_one_whose_tensor_it_returns(
    make_module: MakeModule, make_record: MakeRecord
) -> None:
    conv = make_module("block.conv", 0, weight_norm=2.0, std=1.0)
    block, identity = make_module("block", 1, std=1.0), make_module("skip", 2, std=1.0)
    other = make_module("head", 3, std=1.1)
    before = make_record(conv, block, identity, other)
    assert same_as(before, before) == {
        "block.conv": None,
        "block": "block.conv",
        "skip": "block.conv",
        "head": None,
    }
    worse = make_record(
        *(replace(m, stats=FrozenMapping({**m.stats, "sample_variation": 1e-6})) for m in before.modules)
    )
    assert str(compare(before, worse)).count("sample variation") == 3  # verdict, block.conv and head
    trained = make_record(conv, make_module("block", 1, rms=1.1, std=1.0), identity, other)
    assert same_as(before, trained)["block"] is None
    assert same_as(trained, before)["block"] is None


def test_two_dead_layers_are_not_one_tensor(make_module: MakeModule, make_record: MakeRecord) -> None:
    dead = [make_module(name, order, std=0.0) for order, name in enumerate(("a.inner", "a", "b"))]
    assert same_as(make_record(*dead), make_record(*dead)) == {"a.inner": None, "a": "a.inner", "b": None}


def test_other_input_is_refused_unless_allowed(make_record: MakeRecord) -> None:
    with pytest.raises(ReportError, match="`allow_different_input=True`"):
        compare(make_record(), make_record(digest="b"))
    with pytest.raises(ReportError, match="numbers of samples"):
        compare(make_record(), make_record(samples=4))
    found = compare(make_record(), make_record(digest="b"), allow_different_input=True)
    assert any("inputs differ" in note for note in found.notes)


def test_the_step_of_a_collapse_is_named_whatever_the_order_of_the_reports(
    make_module: MakeModule, make_record: MakeRecord
) -> None:
    records = [
        make_record(
            make_module("a"), make_module("b", 1, sample_variation=0.2 if step < 40 else 1e-4), step=step
        )
        for step in (50, 10, 40, 20, 30)
    ]
    found = compare(*records)
    assert found.break_step == 40
    assert found.worse
    assert found.first_diverging == "b"
    assert "broke at step 40" in found.verdict


def test_a_break_of_a_series_over_epochs_is_at_an_epoch(
    make_module: MakeModule, make_record: MakeRecord
) -> None:
    epochs = []
    for step, value in enumerate((0.2, 1e-4, 1e-4)):
        record = make_record(make_module("a", sample_variation=value), step=step)
        summary = freeze_mapping({**record.summary, "step_kind": "epoch"})
        epochs.append(replace(record, summary=summary))
    assert compare(*epochs).verdict.startswith("broke at epoch 1: ")


def test_a_dip_that_recovers_is_no_break(make_module: MakeModule, make_record: MakeRecord) -> None:
    values = (0.2, 0.2, 1e-4, 0.2, 0.2)
    records = [
        make_record(make_module("a", sample_variation=value), step=step) for step, value in enumerate(values)
    ]
    found = compare(*records)
    assert found.break_step is None
    assert not found.worse


def test_the_way_back_from_an_explosion_is_no_break_either(
    make_module: MakeModule, make_record: MakeRecord
) -> None:
    values = (1.0, 1.1, 500.0, 600.0, 1.1, 1.2)
    records = [make_record(make_module("a", rms=value), step=step) for step, value in enumerate(values)]
    found = compare(*records)
    assert found.break_step is None
    assert not found.worse


def test_one_jump_is_no_trend(make_module: MakeModule, make_record: MakeRecord) -> None:
    values = (1.0, 1.01, 1.02, 3.0, 3.01)
    records = [make_record(make_module("a", rms=value), step=step) for step, value in enumerate(values)]
    assert compare(*records).series.trends == ()


def test_slow_growth_is_a_trend_not_a_break(make_module: MakeModule, make_record: MakeRecord) -> None:
    found = compare(*(make_record(make_module("a", rms=2.0**step), step=step) for step in range(6)))
    assert found.break_step is None
    assert not found.worse
    assert [(trend.key, trend.kendall_tau) for trend in found.series.trends] == [("rms/a", 1.0)]


def test_a_report_without_a_step_is_left_out_of_a_series(
    make_module: MakeModule, make_record: MakeRecord
) -> None:
    series = [make_record(make_module("a", rms=1 + 0.01 * step), step=step) for step in range(3)]
    final = make_record(make_module("a", rms=500.0))
    alone, with_final = compare(*series), compare(final, *series)
    assert with_final.verdict == f"{alone.verdict}; 1 report without a step left out"
    assert not with_final.worse


def test_dead_channels_after_an_activation_are_usual_until_nearly_all_are_dead(
    make_module: MakeModule, make_record: MakeRecord
) -> None:
    def worse(after: float, role: str) -> bool:
        modules = (
            make_module("a", role=role, weight_norm=1.0, dead_channel_fraction=share)
            for share in (0.1, after)
        )
        return compare(*map(make_record, modules)).worse

    assert [worse(0.5, "activation"), worse(0.95, "activation"), worse(0.5, "local")] == [False, True, True]
    # A block that ends with an activation function has no weights of its own.
    assert not compare(
        make_record(make_module("a")), make_record(make_module("a", dead_channel_fraction=0.5))
    ).worse


def test_steps_of_different_kinds_are_never_mixed(make_record: MakeRecord) -> None:
    records = [make_record(step=1), make_record(step=2, kind="epoch"), make_record(step=3)]
    with pytest.raises(ReportError, match="epoch, step"):
        compare(*records)


def test_a_group_says_in_how_many_runs(make_module: MakeModule, make_record: MakeRecord) -> None:
    sick = make_record(make_module("a", sample_variation=1e-5))
    healthy = make_record(make_module("a"))
    found = compare(healthy, sick, healthy, sick, group=True)
    assert "2 of 3 runs are worse" in found.verdict
    assert [(g.layer, g.statistic, g.runs, g.of) for g in found.group] == [("a", "sample_variation", 2, 3)]


def test_a_group_lists_the_layers_of_equally_many_runs_in_execution_order(
    make_module: MakeModule, make_record: MakeRecord
) -> None:
    names = [f"layer{index}" for index in range(12)]
    healthy = make_record(*(make_module(name, order) for order, name in enumerate(names)))
    sick = make_record(*(make_module(name, order, sample_variation=1e-5) for order, name in enumerate(names)))
    found = compare(healthy, sick, sick, group=True)
    assert [finding.layer for finding in found.group if finding.statistic == "sample_variation"] == names


def test_one_report_is_not_a_comparison(make_record: MakeRecord) -> None:
    with pytest.raises(ReportError, match="at least two"):
        compare(make_record())


def test_a_list_of_records_is_refused_with_what_to_do(make_record: MakeRecord) -> None:
    with pytest.raises(OptionError, match=r"given a list; expected records.*each as an argument of its own"):
        compare([make_record(), make_record()])


def test_thresholds_come_from_a_file(tmp_path, make_module: MakeModule, make_record: MakeRecord) -> None:
    path = tmp_path / "limits.toml"
    path.write_text("[compare]\nscale = 100\n")
    limits = read_thresholds(path)
    assert limits == Thresholds(scale=100)
    assert not compare(
        make_record(make_module("a")), make_record(make_module("a", rms=20.0)), thresholds=limits
    ).worse


@pytest.mark.parametrize(
    "text",
    [
        "[compare]\nscal = 1\n",
        "[compare]\nscale = 0\n",
        "[compare]\nscale = 0.5\n",
        "[compare]\nscale = true\n",
        "compare = 1\n",
        "x =",
    ],
)
def test_a_wrong_threshold_file_is_one_line(tmp_path, text: str) -> None:
    path = tmp_path / "limits.toml"
    path.write_text(text)
    with pytest.raises(OptionError, match="`thresholds`") as caught:
        read_thresholds(path)
    assert "\n" not in str(caught.value)


def learning_run(make_module: MakeModule, make_record: MakeRecord, *sizes: float, **losses: tuple) -> list:
    """Return a run whose first layer has these rms, and the second one rms 1; if given, with these losses."""
    records = []
    for step, rms in enumerate(sizes):
        record = make_record(make_module("a", rms=rms), make_module("b", 1), step=10 * step)
        loss = {"loss": losses["losses"][step]} if losses else {}
        records.append(replace(record, summary=freeze_mapping({**record.summary, **loss})))
    return records


@pytest.mark.parametrize(
    ("sizes", "losses", "step"),
    [
        ((0.05, 20.0, 21.0), None, None),  # learning, as the first record shows nothing of the run yet
        ((0.05, 200.0, 210.0), None, 10),  # far beyond
        ((0.05, 200.0, 20.0), None, 10),  # on its way back, and still beyond
        ((0.05, 200.0, 2.0), None, None),  # recovered
        ((0.05, 20.0, 21.0), (1.0, 1.5, 1.6), 10),  # the loss says that this is no learning
        ((0.05, 20.0, 21.0), (1.0, 0.5, 0.4), None),
        ((0.05, 0.05, 20.0, 21.0), None, 20),
    ],
)
def test_learning_is_not_a_break(
    make_module: MakeModule, make_record: MakeRecord, sizes: tuple, losses: tuple | None, step: int | None
) -> None:
    records = learning_run(make_module, make_record, *sizes, **({"losses": losses} if losses else {}))
    found = compare(*records)
    assert found.break_step == step
    assert found.worse == (step is not None)


def test_a_pair_with_an_untrained_report_is_judged_like_the_start_of_a_run(
    make_module: MakeModule, make_record: MakeRecord
) -> None:
    before, after, broken = learning_run(make_module, make_record, 0.05, 20.0, 200.0)
    found = compare(before, after)
    assert not found.worse
    assert any("learned most of what it knows" in note for note in found.notes)
    assert compare(before, broken).worse
    assert not compare(before, after, after, group=True).worse
    later = replace(before, summary=freeze_mapping({**before.summary, "checkpoint_step": 5}))
    assert compare(later, after).worse


def outputs(make_module: MakeModule, make_record: MakeRecord, *steps: tuple[float, float]) -> list:
    """Return a run with these rms of a layer, and these sample variations of the output, whose rms is 0.5."""
    found = []
    for step, (rms, variation) in enumerate(steps):
        record = make_record(make_module("a", rms=rms), make_module("b", 1), step=10 * step)
        output = make_module("head", rms=0.5, sample_variation=variation)
        found.append(replace(record, output=output, input=make_module("input", rms=1.0)))
    return found


@pytest.mark.parametrize(
    ("steps", "step"),
    [
        # The layer grows while the run learns to tell its samples apart.
        (((0.05, 0.02), (0.05, 0.1), (20.0, 0.4), (21.0, 0.41)), None),
        # A spike makes the outputs differ as well, but after a record at which they did not.
        (((0.05, 0.02), (0.05, 0.1), (0.05, 0.1), (20.0, 0.4), (21.0, 0.4)), 30),
    ],
)
def test_outputs_that_differ_more_are_learning_only_from_the_start_on(
    make_module: MakeModule, make_record: MakeRecord, steps: tuple, step: int | None
) -> None:
    assert compare(*outputs(make_module, make_record, *steps)).break_step == step


def test_the_way_back_from_a_spike_is_no_break(make_module: MakeModule, make_record: MakeRecord) -> None:
    variations = (0.2, 0.1, 0.06, 0.06, 0.3, 0.02, 0.02)
    records = [
        make_record(make_module("a", sample_variation=value), step=step)
        for step, value in enumerate(variations)
    ]
    assert compare(*records).break_step is None


def test_samples_that_differ_as_much_as_before_around_a_larger_mean_are_not_worse(
    make_module: MakeModule, make_record: MakeRecord
) -> None:
    before = make_record(make_module("a", rms=1.0, sample_variation=0.2), make_module("b", 1, rms=30.0))
    grown = make_record(make_module("a", rms=20.0, sample_variation=0.01), make_module("b", 1, rms=30.0))
    lost = make_record(make_module("a", rms=1.0, sample_variation=0.01), make_module("b", 1, rms=30.0))
    assert not compare(before, grown).worse
    assert compare(before, lost).worse


def test_an_output_that_is_no_longer_finite_is_worse_whatever_the_modules(
    make_module: MakeModule, make_record: MakeRecord
) -> None:
    before, after = (
        replace(make_record(), output=make_module("output", nan_count=count)) for count in (0, 1)
    )
    found = compare(before, after)
    assert (found.severity, found.first_diverging) == ("error", "output")
    assert "in output, a value is no longer finite" in found.verdict


@pytest.mark.parametrize("learning", [False, True])
@pytest.mark.parametrize(
    "stats",
    [
        {},
        {"nan_count": 3},
        {"rms": 2.0},
        {"rms": 2000.0},
        {"rms": 1e-9},
        {"sample_variation": 0.001, "rms": 0.1},
        {"dead_channel_fraction": 0.5},
        {"dead_channel_fraction": 0.5, "weight_norm": None},
        {"low_frequency_fraction": 0.1},
    ],
)
def test_whether_something_is_worse_is_what_the_whole_comparison_says(
    make_module: MakeModule, make_record: MakeRecord, stats: dict[str, float], learning: bool
) -> None:
    before = make_record(make_module("a"), make_module("b", 1, weight_norm=1.0))
    after = make_record(make_module("a"), make_module("b", 1, **{"weight_norm": 1.0, **stats}))
    for pair in ((before, after), (after, before)):
        whole = compare_pair(*pair, Thresholds(), learning)
        assert is_worse(*pair, Thresholds(), learning) == whole.worse


@pytest.mark.parametrize("seed", range(20))
def test_kendalls_tau_is_the_mean_sign_of_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Nearly monotone, with ties.
    values = np.round(np.arange(30) + rng.normal(0, 0.3 * (seed % 5), 30), seed % 3) * (-1) ** seed
    pairs = [np.sign(values[j] - values[i]) for j in range(30) for i in range(j)]
    expected = float(np.mean(pairs))
    found = [trend.kendall_tau for trend in find_trends({"rms/a": values.tolist()}, 0.0)]
    assert found == ([expected] if abs(expected) >= 0.9 else [])


def test_a_series_is_of_one_stage_and_a_pair_may_be_of_two(make_record: MakeRecord) -> None:
    trained = [
        replace(make_record(step=step), training=FrozenMapping({"stage": "train"})) for step in (1, 2, 3)
    ]
    validated = replace(trained[-1], training=FrozenMapping({"stage": "val"}))
    with pytest.raises(
        ReportError, match="1 of 4 records are of validations, which are a series of their own"
    ):
        compare(*trained, validated)
    assert compare(*trained).notes == ()
    assert compare(trained[-1], validated).notes == (
        "a training is compared with a validation, which runs in another mode and on other batches",
    )
