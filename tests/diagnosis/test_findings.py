"""How findings are put in order: by cause, by severity, by time."""

import sys
from collections import Counter
from dataclasses import replace

import pytest

from fno_telemetry import plugins
from fno_telemetry.comparison.break_steps import find_break
from fno_telemetry.comparison.pairs import compare_pair, is_worse
from fno_telemetry.comparison.trends import collect_columns
from fno_telemetry.diagnosis import example_records, rule
from fno_telemetry.diagnosis.findings import assign_findings, diagnose
from fno_telemetry.diagnosis.installed_rules import load_rule
from fno_telemetry.diagnosis.places import block_places, module_places
from fno_telemetry.errors import OptionError, PluginNotFound, ReportError
from fno_telemetry.findings import SEVERITIES
from fno_telemetry.records import FrozenMapping, freeze_mapping


@pytest.fixture
def record():
    return example_records.healthy_record()


def roots(findings):
    return [(finding.rule, finding.layer) for finding in findings if finding.follows_from is None]


def test_what_comes_first_in_the_forward_is_the_cause_and_the_rest_follows(record):
    for name in ("blocks.0.local", "blocks.1.local", "blocks.2.local"):
        record = example_records.change_module(record, name, nan_count=1)
    findings = diagnose(example_records.change_output(record, nan_count=1))
    assert roots(findings) == [("non_finite", "blocks.0.local")]
    assert [finding.layer for finding in findings[1:]] == ["blocks.1.local", "blocks.2.local", "output"]
    assert {finding.follows_from for finding in findings[1:]} == {findings[0].id}


def test_the_input_comes_before_everything(record):
    record = example_records.change_module(record, "lifter.conv", nan_count=1)
    findings = diagnose(example_records.change_input(record, nan_count=1))
    assert roots(findings) == [("bad_input", "input")]


def test_what_a_finding_does_not_explain_is_a_cause_itself(record):
    record = example_records.change_module(record, "blocks.0.local", rms=0.0)
    record = example_records.change_module(record, "blocks.2.spectral", dead_mode_fraction=0.5)
    assert roots(diagnose(record)) == [("dead_layer", "blocks.0.local"), ("dead_modes", "blocks.2.spectral")]


def test_a_later_finding_explains_nothing_before_it(record):
    record = example_records.change_module(record, "blocks.0.local", tail_ratio=400.0)
    record = example_records.change_module(record, "blocks.2.local", rms=0.0)
    assert roots(diagnose(record)) == [("dead_layer", "blocks.2.local"), ("heavy_tail", "blocks.0.local")]


def test_errors_stand_before_warnings_and_warnings_before_notes(record):
    record = example_records.change_module(record, "blocks.0.spectral", unused_weight_fraction=0.5)
    record = example_records.change_module(record, "blocks.1.local", dead_channel_fraction=0.2)
    findings = diagnose(example_records.change_block(record, 2, spectral_share=0.0))
    ranks = [SEVERITIES.index(finding.severity) for finding in findings]
    assert ranks == [2, 1, 0]


def test_a_warning_that_explains_an_error_comes_before_other_warnings(record):
    record = example_records.change_module(record, "lifter.conv", dead_channel_fraction=0.2)
    record = example_records.change_block(record, 0, branch_cosine=-1.0, branch_coherence=0.0)
    record = example_records.change_module(record, "blocks.0.act", rms=0.0)
    assert roots(diagnose(record)) == [("branch_cancellation", "blocks.0"), ("dead_channels", "lifter.conv")]


def test_a_note_explains_nothing(record):
    record = example_records.change_module(record, "blocks.0.spectral", truncated_energy_fraction=0.6)
    record = example_records.change_module(record, "blocks.1.spectral", truncated_energy_fraction=0.6)
    assert all(finding.follows_from is None for finding in diagnose(record))


def test_of_gradients_the_last_layer_is_the_cause(record):
    for name in ("lifter.conv", "blocks.0.local", "blocks.1.local"):
        record = example_records.change_module(record, name, grad_to_weight=1e-9)
    findings = diagnose(record)
    assert roots(findings)[0] == ("vanishing_gradient", "blocks.1.local")


def test_what_was_there_a_step_before_is_said_once(record):
    dead = example_records.change_module(record, "blocks.1.local", dead_channel_fraction=0.1)
    series = [example_records.set_step(one, step) for step, one in enumerate((record, dead, dead, dead))]
    findings = [finding for finding in diagnose(*series) if finding.rule == "dead_channels"]
    assert [(finding.step, finding.follows_from) for finding in findings] == [
        (1, None),
        (2, findings[0].id),
        (3, findings[0].id),
    ]


def test_what_went_away_and_came_back_is_said_again(record):
    dead = example_records.change_module(record, "blocks.1.local", dead_channel_fraction=0.1)
    series = [example_records.set_step(one, step) for step, one in enumerate((dead, record, dead))]
    findings = [finding for finding in diagnose(*series) if finding.rule == "dead_channels"]
    assert [(finding.step, finding.follows_from) for finding in findings] == [(0, None), (2, None)]


def test_the_order_in_which_records_are_given_makes_no_difference(record):
    loud = example_records.change_module(record, "blocks.1.local", rms=40.0)
    series = [example_records.set_step(one, step) for step, one in enumerate((record, record, loud, loud))]
    assert diagnose(*series) == diagnose(*series[::-1])


def test_a_collapse_explains_what_is_seen_from_then_on(record):
    broken = example_records.change_module(record, "blocks.1.local", rms=40.0, dead_channel_fraction=0.5)
    series = example_records.make_series(record, record, broken, broken)
    findings = diagnose(*series)
    assert roots(findings)[0] == ("collapse_at_step", "blocks.1")
    assert findings[0].step == 20
    assert ("dead_channels", "blocks.1.local") not in roots(findings)
    # A break has no end, also where what follows from it is gone.
    mended = example_records.change_module(record, "blocks.1.local", rms=40.0)
    assert "not seen" not in diagnose(*series, example_records.set_step(mended, 40))[0].message


def test_identities_are_unique_and_the_same_each_time(record):
    record = example_records.change_input(record, min=0.0, max=0.0, rms=0.0, std=0.0, nan_count=1)
    series = [example_records.set_step(record, step) for step in range(3)]
    findings = diagnose(*series)
    assert len({finding.id for finding in findings}) == len(findings)
    assert diagnose(*series) == findings


def test_a_fault_that_went_away_is_no_break_and_says_when_it_was_last_seen(record):
    loud = example_records.change_module(record, "blocks.1.local", rms=400.0, dead_channel_fraction=0.1)
    series = [
        example_records.set_step(one, step) for step, one in enumerate((record, record, loud, record, record))
    ]
    findings = diagnose(*series)
    assert "collapse_at_step" not in {finding.rule for finding in findings}
    [finding] = [finding for finding in findings if finding.rule == "dead_channels"]
    assert finding.message.endswith("; not seen after step 2")
    lasting = diagnose(*series[:3])
    assert not any("not seen after" in finding.message for finding in lasting)


def test_a_break_is_no_trend(record):
    sizes = (1.0, 1.01, 1.02, 90.0, 91.0)
    series = [
        example_records.set_step(example_records.change_module(record, "blocks.1.local", rms=size), step)
        for step, size in enumerate(sizes)
    ]
    assert {finding.rule for finding in diagnose(*series)} == {"collapse_at_step"}


def test_a_loud_block_makes_no_others_idle(record):
    record = example_records.change_block(record, 1, update_ratio=100.0)
    assert diagnose(record, rules=["identity_block"]) == ()


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda r: example_records.change_module(r, "blocks.1.local", tail_ratio=700.0), "heavy_tail"),
        (lambda r: example_records.change_module(r, "blocks.1.local", mean=200.0), "drifting_mean"),
        (lambda r: example_records.change_module(r, "blocks.1.local", rms=500.0), "exploding_activations"),
        (lambda r: example_records.change_block(r, 1, spectral_local_ratio=0.01), "spectral_branch_weak"),
        (lambda r: example_records.change_block(r, 1, update_ratio=0.001), "identity_block"),
    ],
)
def test_what_the_baseline_has_as_well_is_not_said(record, change, rule):
    record = change(record)
    assert [finding.rule for finding in diagnose(record, rules=[rule])] == [rule]
    assert diagnose(record, rules=[rule], baseline=record) == ()


def test_two_reports_of_one_step_lose_nothing(record):
    dead = example_records.set_step(example_records.change_block(record, 1, spectral_share=0.0), 7)
    whole = example_records.set_step(example_records.change_block(record, 2, spectral_share=0.0), 7)
    findings = diagnose(dead, whole, dead, rules=["spectral_branch_dead"])
    assert [finding.layer for finding in findings] == ["blocks.1", "blocks.2", "blocks.1"]
    assert len({finding.id for finding in findings}) == 3


def test_a_finding_reads_as_one_line(record):
    [finding] = diagnose(example_records.change_block(record, 1, spectral_share=0.0))
    assert str(finding) == (
        "error: blocks.1: has a dead spectral branch: the energy of the branch, divided by that of both "
        "branches, is 0 (expected: more than 1e-08) (spectral_branch_dead)"
    )


def test_only_the_rules_that_are_asked_for_are_applied(record):
    record = example_records.change_module(record, "blocks.1.local", rms=0.0, dead_channel_fraction=0.5)
    assert roots(diagnose(record, rules=["dead_channels"])) == [("dead_channels", "blocks.1.local")]


def test_thresholds_move_a_rule(record):
    record = example_records.change_module(record, "blocks.1.local", rms=1e-4)
    assert diagnose(record, rules=["dead_layer"]) == ()
    assert diagnose(record, rules=["dead_layer"], thresholds={"dead_layer": {"near_zero": 1e-3}})


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"rules": ["absent"]}, PluginNotFound, "No rule is called 'absent'"),
        ({"thresholds": {"absent": {}}}, OptionError, "no rule is called 'absent'"),
        ({"thresholds": {"dead_layer": {"most": 1}}}, OptionError, "has no threshold 'most'"),
        ({"thresholds": {"dead_layer": {"near_zero": True}}}, OptionError, "a number was expected"),
        ({"thresholds": {"dead_layer": 1}}, OptionError, "must be a table"),
    ],
)
def test_what_cannot_be_asked_is_refused(record, given, error, words):
    with pytest.raises(error, match=words):
        diagnose(record, **given)


def test_no_record_and_steps_of_different_kinds_are_refused(record):
    with pytest.raises(ReportError, match="at least one"):
        diagnose()
    by_epoch = example_records.set_step(record, 1)
    by_epoch = replace(by_epoch, summary=FrozenMapping({**by_epoch.summary, "step_kind": "epoch"}))
    with pytest.raises(ReportError, match=r"different kinds \(epoch, step\)"):
        diagnose(by_epoch, example_records.set_step(record, 2))


def test_a_record_without_a_step_is_judged_but_not_as_a_part_of_the_series(record):
    dead = example_records.change_module(record, "blocks.1.local", dead_channel_fraction=0.1)
    loud = example_records.change_module(record, "blocks.0.local", rms=1e6)
    series = [example_records.set_step(one, step) for step, one in enumerate((record, dead, dead))]
    findings = diagnose(loud, *series)
    assert {f.step for f in findings if f.rule == "exploding_activations"} == {None}
    # Only the records with steps tell when something was seen last.
    assert [f for f in findings if "not seen after" in f.message] == []
    assert [f for f in findings if f.rule in ("collapse_at_step", "trend")] == []
    assert diagnose(*series) == tuple(f for f in findings if f.step is not None)


def test_a_cause_is_as_severe_as_what_follows_from_it(record):
    drifted = example_records.change_module(record, "blocks.1.local", mean=-30.0, rms=30.0)
    silent = example_records.change_module(drifted, "blocks.1.act", rms=0.0)
    first = diagnose(silent)[0]
    assert (first.rule, first.layer, first.severity) == ("drifting_mean", "blocks.1.local", "error")
    assert diagnose(drifted)[0].severity == "warning"


def test_a_built_in_rule_that_fails_is_not_hidden(record, monkeypatch):
    @rule(about="steps")
    def broken(record):
        raise RuntimeError("ours")
        yield

    load = plugins.load
    monkeypatch.setattr(plugins, "load", lambda kind, name: broken if name == "trend" else load(kind, name))
    with pytest.raises(RuntimeError, match="ours"):
        diagnose(record)


def test_a_block_comes_after_its_branches(record):
    positions = {place.name: place.position for place in (*module_places(record), *block_places(record))}
    named = {m.name: m.order for m in record.modules}
    for place in block_places(record):
        assert named[f"{place.name}.local"] < place.position < named[f"{place.name}.act"]
    assert len(positions) == len(record.modules)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("x.json", "`diagnose` was given a str; expected records, as from ft.capture or ft.load_report$"),
        (None, "`diagnose` was given a NoneType; expected records"),
        ([], "`diagnose` was given a list; expected records, .*, each as an argument of its own$"),
    ],
    ids=["text", "none", "list"],
)
def test_what_is_no_record_is_refused(record, given, message):
    with pytest.raises(OptionError, match=message):
        diagnose(given)
    if given is not None:
        with pytest.raises(OptionError, match=message):
            diagnose(record, baseline=given)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            "dead_layer",
            r"`rules` is 'dead_layer'; expected a list of names of rules, such as \['dead_layer'\]$",
        ),
        (3, "`rules` is a int; expected a list of names"),
        ([load_rule("dead_layer")], "`rules` holds a Rule; expected names of rules, such as 'dead_layer'$"),
    ],
    ids=["text", "number", "rule"],
)
def test_rules_that_are_no_list_of_names_are_refused(record, rules, message):
    with pytest.raises(OptionError, match=message):
        diagnose(record, rules=rules)


def untrained(record):
    summary = freeze_mapping({**record.summary, "weights": "untrained, seed 0"})
    return replace(example_records.change_output(record, sample_variation=0.05), summary=summary)


def test_what_grew_since_an_untrained_baseline_has_learned(record):
    grown = example_records.change_module(record, "blocks.1.local", rms=40.0, tail_ratio=100.0)
    assert {finding.rule for finding in diagnose(grown, baseline=record)} >= {"exploding_activations"}
    assert diagnose(grown, baseline=untrained(record)) == ()
    # The report need not say that it is of an untrained network.
    small = example_records.change_output(record, sample_variation=0.05)
    assert diagnose(grown, baseline=small) == ()


def test_an_input_of_another_scale_explains_what_layers_pass_on(record):
    baseline = untrained(record)
    for known in (record, baseline):
        scaled = example_records.change_input(record, mean=10.0, std=1e4, rms=1e4, min=-4e4, max=4e4)
        for layer in ("lifter", "blocks.0.local", "blocks.1.local"):
            scaled = example_records.change_module(scaled, layer, rms=1e4)
        first, *rest = diagnose(scaled, baseline=known)
        assert (first.rule, first.layer, first.severity) == ("input_scale", "input", "warning")
        assert "1e+04" in first.message
        assert "in the baseline it is 1 " in first.message
        assert "normalised" in first.advice
        assert all(finding.follows_from == first.id for finding in rest)
        assert rest
    assert [finding.severity for finding in diagnose(scaled) if finding.layer == "input"] == ["note"]


@pytest.mark.parametrize("stats", [{"sample_variation": 0.0}, {"rms": 0.0, "sample_variation": None}])
def test_a_series_that_never_returns_anything_is_diagnosed(record, stats):
    dead = example_records.change_output(record, **stats)
    series = example_records.make_series(dead, dead, dead)
    assert "trend" not in {finding.rule for finding in diagnose(*series)}
    # Two outputs that are zero do not show that anything was learned.
    loud = example_records.change_module(dead, "blocks.1.local", rms=40.0)
    assert "exploding_activations" in {finding.rule for finding in diagnose(loud, baseline=dead)}


def test_an_input_that_is_not_far_off_does_not_explain_what_is_not_finite(record):
    sick = example_records.change_module(record, "blocks.1.local", nan_count=7, finite_fraction=0.9)
    near, far = (example_records.change_input(sick, rms=rms, std=rms) for rms in (12.0, 1e4))
    causes = [cause for cause, _ in roots(diagnose(near, baseline=record))]
    assert causes[0] == "non_finite"
    assert [cause for cause, _ in roots(diagnose(far, baseline=record))] == ["input_scale"]


def zero_start(record):
    return example_records.change_module(record, "blocks.1.local", rms=0.0, weight_norm=0.0)


def test_a_layer_that_starts_at_zero_is_a_note_unless_it_never_moves(record):
    assert [f.severity for f in diagnose(zero_start(record))] == ["error"]
    assert {f.severity for f in diagnose(zero_start(untrained(record)))} == {"note"}
    learned = example_records.make_series(zero_start(record), record, record)
    [finding] = diagnose(*learned)
    assert (finding.rule, finding.severity) == ("dead_layer", "note")
    assert finding.message == "returns zero everywhere; not seen after step 0"
    stuck = example_records.make_series(*[zero_start(record)] * 3)
    assert diagnose(*stuck)[0].severity == "error"
    relapsed = example_records.make_series(zero_start(record), record, zero_start(record))
    assert {f.severity for f in diagnose(*relapsed) if f.rule == "dead_layer"} == {"error"}


def test_a_finding_of_an_epoch_is_at_an_epoch(record):
    dead = example_records.change_module(record, "blocks.1.local", dead_channel_fraction=0.1)
    epochs = [
        replace(one, summary=freeze_mapping({**one.summary, "checkpoint_step": index, "step_kind": "epoch"}))
        for index, one in enumerate((record, dead))
    ]
    assert [finding.when for finding in diagnose(*epochs)] == ["epoch 1"]


def test_a_training_and_its_validations_are_judged_apart(record):
    series = [example_records.set_step(record, step) for step in (0, 10, 20)]
    validations = [
        replace(
            example_records.set_step(example_records.change_module(record, "blocks.1.local", rms=4e3), step),
            training=freeze_mapping({"stage": "val"}),
        )
        for step in (5, 15)
    ]
    apart = {(each.rule, each.layer, each.when) for each in diagnose(*validations)}
    together = diagnose(*series, *validations)
    assert apart == {(each.rule, each.layer, each.when) for each in together}
    assert not any(each.rule == "collapse_at_step" for each in together)
    assert {each.when for each in together} == {"step 5 in validation", "step 15 in validation"}


def test_records_get_the_findings_about_them_in_the_same_words(record):
    broken = example_records.change_module(record, "blocks.1.local", rms=40.0, dead_channel_fraction=0.5)
    series = example_records.make_series(record, record, broken, broken)
    names = ["a.json", "b.json", "c.json", "d.json"]
    findings = diagnose(*series, reports=names)
    assigned = assign_findings(series, names, findings)
    assert [len(each.findings) for each in assigned[:2]] == [0, 0]
    first = assigned[2].findings[0]
    assert (first.rule, first.step, first.message) == ("collapse_at_step", 20, findings[0].message)
    assert {f.report for each in assigned for f in each.findings} == {None}
    later = assigned[3].findings
    assert {f.follows_from for f in later} == {first.id}
    assert sum(len(each.findings) for each in assigned) == len(findings)


def count_calls(work, *functions):
    """Return how often each function is called while `work` runs."""
    names = {function.__code__: function.__name__ for function in functions}
    counted = Counter()

    def note(frame, event, _):
        if event == "call" and frame.f_code in names:
            counted[names[frame.f_code]] += 1

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return counted


def test_a_series_is_compared_once_for_all_rules(record):
    series = example_records.make_series(*[record] * 6)
    counted = count_calls(lambda: diagnose(*series), find_break, is_worse, compare_pair, collect_columns)
    assert counted == {"find_break": 1, "is_worse": 5, "collect_columns": 1}


def test_only_the_step_that_broke_is_compared_in_full(record):
    broken = example_records.change_module(record, "blocks.1.local", rms=30.0)
    series = example_records.make_series(
        example_records.change_output(record, sample_variation=0.1), record, record, broken, broken
    )
    findings = []
    counted = count_calls(lambda: findings.extend(diagnose(*series)), find_break, compare_pair)
    assert counted == {"find_break": 1, "compare_pair": 1}
    assert roots(findings)[0][0] == "collapse_at_step"
