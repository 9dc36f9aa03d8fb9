"""Checks a rule: it fires on its example, is silent on the other and on a healthy record, and says enough.

from fno_telemetry.testing.rules import check_rule

def test_loud_layer():
check_rule(loud_layer)
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fno_telemetry.diagnosis.contract import Example, Rule, Symptom
from fno_telemetry.diagnosis.example_records import healthy_record, make_series, remove_numbers
from fno_telemetry.diagnosis.places import Place, block_places, target_place, tensor_places
from fno_telemetry.findings import MODEL, SEVERITIES
from fno_telemetry.records import CaptureRecord
from fno_telemetry.testing.promises import calling, require
from fno_telemetry.wording import to_one_line

_PARTS = ("Formula", "Default", "False alarm when")

_Of = CaptureRecord | Sequence[CaptureRecord]


def check_rule(rule: Rule) -> None:
    """Check a rule; AssertionError says in one line which promise it breaks.

    A sound rule is documented: formula, default of each threshold, and when it gives a false alarm. It yields
    complete symptoms on its example `fires_on` and none on `silent_on`, on a healthy record, on records whose
    statistics are all null and on one without layers. It does not change what it reads.
    """
    if not isinstance(rule, Rule):
        name = getattr(rule, "__name__", rule)
        raise AssertionError(
            f"{name} is not a rule: put @fno_telemetry.diagnosis.rule(about=…) above the function"
        )
    _check_text(rule)
    fires, silent = _make_example(rule, "fires_on"), _make_example(rule, "silent_on")
    others = _make_others(rule)
    symptoms = _apply(rule, fires, "its example `fires_on`", **others)
    _require(rule, bool(symptoms), "finds nothing in its example `fires_on`")
    for symptom in symptoms:
        _check_symptom(rule, symptom, fires)
    healthy = _each(rule, healthy_record())
    _check_silence(rule, silent, "its example `silent_on`", **others)
    _check_silence(rule, healthy, "a healthy record")
    if rule.takes_baseline:
        _check_silence(rule, healthy, "a healthy record with itself as baseline", baseline=healthy_record())
    if rule.takes_test:
        _check_silence(rule, healthy, "a healthy record with itself as test", test=healthy_record())
    if rule.takes_resampled:
        _check_silence(rule, healthy, "a healthy record without another", resampled=healthy_record())
    _check_silence(rule, _change(healthy, remove_numbers), "a record whose statistics are all null")
    _check_silence(rule, _change(healthy, _remove_layers), "a record without layers, input and output")
    # What is read off names and shapes is there without numbers too, so this only has to end well.
    changed = _change(fires, remove_numbers)
    _apply(rule, changed, "its example `fires_on` with null for every statistic", **others)


def _check_text(rule: Rule) -> None:
    for part in _PARTS:
        _require(rule, part in rule.text, f"its docstring does not say {part!r}")
    for threshold in rule.thresholds:
        _require(rule, threshold in rule.text, f"its docstring does not explain the threshold {threshold!r}")
    for threshold, default in rule.thresholds.items():
        _require(rule, math.isfinite(default), f"the default of {threshold!r} is {default}, not a number")


def _make_example(rule: Rule, name: str) -> _Of:
    make: Example | None = getattr(rule, name)
    if make is None:
        raise AssertionError(f"rule {rule.name}: it has no example: give @rule(…) the argument `{name}`")
    with calling(f"rule {rule.name}: `{name}`"):
        example = make()
    if not rule.takes_series:
        _require(rule, isinstance(example, CaptureRecord), f"`{name}` must return a record")
        return example
    _require(rule, isinstance(example, Sequence), f"`{name}` must return the list of records of a series")
    records = list(example) if isinstance(example, Sequence) else []
    are_records = all(isinstance(record, CaptureRecord) for record in records)
    _require(rule, are_records, f"`{name}` must return a list of records, returned {example!r}")
    steps = [record.step for record in records]
    known = [step for step in steps if step is not None]
    rising = len(known) >= 2 and known == steps and known == sorted(set(known))
    _require(rule, rising, f"`{name}` must return two records or more with rising steps, has {steps}")
    return records


def _make_others(rule: Rule) -> dict[str, Any]:
    """Return the record that both examples are compared with, as an argument of the rule."""
    if rule.against is None:
        return {}
    name = next((name for name in ("resampled", "test", "baseline") if getattr(rule, f"takes_{name}")), None)
    _require(rule, name is not None, "`against` is for rules with `resampled`, `test` or `baseline`")
    with calling(f"rule {rule.name}: `against`"):
        other = rule.against()
    _require(rule, isinstance(other, CaptureRecord), "`against` must return a record")
    return {str(name): other}


def _apply(rule: Rule, of: _Of, what: str, **arguments: Any) -> list[Symptom]:
    """Return the symptoms; AssertionError where the rule raises, yields others, or changes what it reads."""
    before = copy.deepcopy(of)
    with calling(f"rule {rule.name}: its function, given {what},"):
        symptoms = list(rule(of, **arguments))
    for symptom in symptoms:
        _require(rule, isinstance(symptom, Symptom), f"yields a {type(symptom).__name__}, not a Symptom")
        is_place = symptom.place is None or isinstance(symptom.place, Place)
        _require(rule, is_place, f"the place of a symptom is {symptom.place!r}, not a Place")
    _require(rule, of == before, f"changes the record that it reads: {what}")
    return symptoms


def _check_silence(rule: Rule, of: _Of, what: str, **arguments: Any) -> None:
    symptoms = _apply(rule, of, what, **arguments)
    if symptoms:
        where = symptoms[0].place.name if symptoms[0].place is not None else MODEL
        seen = to_one_line(f"{where} {symptoms[0].message}")
        raise AssertionError(f"rule {rule.name}: fires on {what}: {seen}")


def _check_symptom(rule: Rule, symptom: Symptom, of: _Of) -> None:
    _require(
        rule,
        symptom.severity in SEVERITIES,
        f"severity {symptom.severity!r} is none of {', '.join(SEVERITIES)}",
    )
    for name in ("message", "advice"):
        text = getattr(symptom, name)
        plain = isinstance(text, str) and text != "" and text == to_one_line(text)
        _require(rule, plain, f"its {name} must be one line of text, is {text!r}")
    _require(rule, symptom.confirm == to_one_line(symptom.confirm), "its `confirm` must be one line of text")
    evidence: object = symptom.evidence
    _require(rule, isinstance(evidence, Mapping), f"its evidence is {evidence!r}, not a mapping")
    numbers = [value for value in symptom.evidence.values() if isinstance(value, int | float)]
    _require(rule, bool(numbers), "its evidence holds no number")
    for name, value in symptom.evidence.items():
        known = value is None or isinstance(value, int | float | str)
        _require(rule, known, f"its evidence {name!r} is a {type(value).__name__}, not a number or text")
    if rule.takes_series:
        record = symptom.record
        series = [] if isinstance(of, CaptureRecord) else of
        _require(
            rule, any(record is one for one in series), "its symptom must name the `record` of the series"
        )
    else:
        record = of if isinstance(of, CaptureRecord) else None
        _require(rule, symptom.record is None, "`record` is for rules over a series")
    if symptom.place is not None and record is not None:
        name, there = symptom.place.name, [place.name for place in _places(record)]
        _require(rule, name in there, f"names {name!r}, which is not in the record")


def _places(record: CaptureRecord) -> Iterator[Place[Any]]:
    yield from tensor_places(record)
    if (target := target_place(record)) is not None:
        yield target
    yield from block_places(record)


def _each(rule: Rule, record: CaptureRecord) -> _Of:
    return make_series(record, record, record) if rule.takes_series else record


def _change(of: _Of, change: Callable[[CaptureRecord], CaptureRecord]) -> _Of:
    return change(of) if isinstance(of, CaptureRecord) else [change(record) for record in of]


def _remove_layers(record: CaptureRecord) -> CaptureRecord:
    return replace(record, modules=(), blocks=(), input=None, output=None, outputs=())


def _require(rule: Rule, holds: bool, why: str) -> None:
    require(holds, f"rule {rule.name}: {why}")
