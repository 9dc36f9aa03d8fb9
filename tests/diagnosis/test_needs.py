"""Rules are applied only where there is what they need, and `diagnose` says what it could not judge."""

from dataclasses import replace

import pytest

import fno_telemetry as ft
from fno_telemetry import plugins
from fno_telemetry.diagnosis import (
    Symptom,
    change_output,
    find_skipped,
    healthy_record,
    make_series,
    rule,
    set_step,
)
from fno_telemetry.errors import OptionError
from fno_telemetry.records import AccuracyRecord, FrozenMapping, freeze_mapping


def with_target(record):
    return replace(record, accuracy=AccuracyRecord(stats=FrozenMapping({"relative_l2": 0.5})))


def symptom(evidence=1.0):
    return Symptom(severity="warning", message="seen", evidence={"value": evidence}, advice="look")


@rule(about="accuracy", needs=("target",), fires_on=lambda: with_target(healthy_record()))
def far_off(record):
    yield symptom(record.accuracy.stats["relative_l2"])


@rule(about="training", needs=("training",))
def stands_still(record):
    yield symptom()


@rule(about="accuracy", needs=("test",))
def overfits(record, *, test=None):
    yield symptom(test.output.stats["rms"])


@rule(about="values", needs=("target", "gradients"))
def both(record):
    yield symptom()


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    own = {each.name: each for each in (far_off, stands_still, overfits, both)}
    load = plugins.load
    monkeypatch.setattr(plugins, "load", lambda kind, name: own[name] if name in own else load(kind, name))


NAMES = ["far_off", "stands_still", "overfits", "both"]


def found(*records, **given):
    return {finding.rule: finding for finding in ft.diagnose(*records, rules=NAMES, **given)}


def test_a_rule_is_applied_only_where_it_has_what_it_needs():
    record = healthy_record()
    assert set(found(record)) == set()
    assert set(found(with_target(record))) == {"far_off", "both"}
    watched = replace(record, training=freeze_mapping({"stage": "train"}))
    assert set(found(watched)) == {"stands_still"}


def test_of_a_series_each_record_is_judged_by_what_it_has():
    first, second = make_series(healthy_record(), with_target(healthy_record()))
    findings = ft.diagnose(first, second, rules=["far_off"])
    assert [finding.step for finding in findings] == [10]


def test_a_test_report_is_compared_with_the_record_of_its_step_or_with_the_last():
    series = make_series(healthy_record(), healthy_record(), healthy_record())
    test = change_output(healthy_record(), rms=7.0)
    for given, step in ((test, 20), (set_step(test, 10), 10), (set_step(test, 99), 20)):
        findings = ft.diagnose(*series, test=given, rules=["overfits"])
        assert [(finding.step, finding.evidence["value"]) for finding in findings] == [(step, 7.0)]


def test_what_is_missing_is_said_with_what_to_give():
    bare = {each.missing: each for each in find_skipped(healthy_record(), rules=[*NAMES, "collapse_at_step"])}
    assert str(bare["no target"]) == "no target: 2 rules skipped; capture with `target`"
    assert bare["no report on test samples"].rules == ("overfits",)
    assert bare["nothing known of the training"].rules == ("stands_still",)
    assert bare["a single step"].rules == ("collapse_at_step",)
    given = find_skipped(with_target(healthy_record()), test=healthy_record(), rules=NAMES)
    assert [each.rules for each in given] == [("stands_still",)]


def test_rules_that_can_compare_are_counted_as_limited_without_a_baseline():
    (found_one,) = find_skipped(healthy_record(), rules=["input_scale"])
    assert (found_one.rules, found_one.limited) == ((), ("input_scale",))
    assert str(found_one).startswith("no baseline: 1 rule judges less; ")
    assert find_skipped(healthy_record(), baseline=healthy_record(), rules=["input_scale"]) == ()


def test_an_unknown_need_is_refused():
    with pytest.raises(OptionError, match="'targets' is not what a rule can need"):
        rule(about="values", needs=("targets",))(lambda record: iter(()))
