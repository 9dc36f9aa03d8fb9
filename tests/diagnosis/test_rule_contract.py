"""What every rule has to do, built in or installed, and that the tester sees what is wrong."""

import importlib.util
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fno_telemetry import plugins
from fno_telemetry.diagnosis import Consequences, Rule, Symptom, module_places, rule
from fno_telemetry.diagnosis.example_records import (
    change_block,
    change_module,
    healthy_record,
    make_series,
    set_step,
)
from fno_telemetry.diagnosis.installed_rules import load_rule
from fno_telemetry.errors import OptionError
from fno_telemetry.quantities import Quantity
from fno_telemetry.testing.rules import check_rule


@pytest.mark.parametrize("name", plugins.names("rules"))
def test_a_rule_is_sound(name: str) -> None:
    check_rule(load_rule(name))


FILE = '''
from fno_telemetry.diagnosis import Symptom, module_places, rule, select_defined
from fno_telemetry.diagnosis.example_records import change_module, healthy_record


@rule(
    about="values",
    fires_on=lambda: change_module(healthy_record(), "blocks.1.local", rms=70.0),
    silent_on=lambda: change_module(healthy_record(), "blocks.1.local", rms=LIMIT / 2),
)
def loud_layer(record, *, most=LIMIT):
    """A layer is too loud.

    Formula: rms > `most` (LIMIT).
    Default: `most` is LIMIT, the range of the detector.
    False alarm when: the detector is another one.
    """
    for place, rms in select_defined(module_places(record), "rms"):
        if rms > most:
            yield Symptom(
                severity="warning",
                place=place,
                message=f"has rms {rms:.3g}",
                evidence={"rms": rms},
                advice="The input is probably too large: scale it.",
            )
'''


@pytest.mark.parametrize(("limit", "wrong"), [("50", None), ("0.5", "rule loud_layer: fires on")])
def test_a_rule_file_that_fires_on_a_healthy_record_fails(
    tmp_path: Path, limit: str, wrong: str | None
) -> None:
    path = tmp_path / "loud_layer.py"
    path.write_text(FILE.replace("LIMIT", limit))
    spec = importlib.util.spec_from_file_location("loud_layer", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if wrong is None:
        check_rule(module.loud_layer)
        return
    with pytest.raises(AssertionError, match=wrong) as caught:
        check_rule(module.loud_layer)
    assert len(str(caught.value).splitlines()) == 1


TEXT = "Formula: x > most. Default: most 50. False alarm when: never."


def make_rule(function: Callable[..., Any], **changed: Any) -> Rule:
    """Return a rule that fires on its example and is sound, but for the function and what is changed."""
    found = rule(
        about="values",
        fires_on=lambda: change_module(healthy_record(), "head", rms=70.0),
        silent_on=lambda: change_module(healthy_record(), "head", rms=40.0),
    )(function)
    return replace(found, **({"text": TEXT} | changed))


def find_loud(record: Any, *, most: float = 50, **symptom: Any) -> Any:
    for place in module_places(record):
        rms = place.value("rms")
        if rms is not None and rms > most:
            known: dict[str, Any] = {"severity": "note", "message": "is loud", "advice": "Scale the input."}
            yield Symptom(place=place, **({"evidence": {"rms": rms}} | known | symptom))


def sound(record: Any, *, most: float = 50) -> Any:
    yield from find_loud(record, most=most)


def fires_on_healthy(record: Any, *, most: float = 50) -> Any:
    yield from find_loud(record, most=0.5)


def fires_on_null(record: Any, *, most: float = 50) -> Any:
    yield from find_loud(record, most=most)
    for place in module_places(record):
        if not place.value("rms"):
            yield Symptom(severity="note", message="is quiet", advice="Look.", evidence={"rms": 0.0})


def raises_on_null(record: Any, *, most: float = 50) -> Any:
    for place in module_places(record):
        if place.value("rms") > most:
            yield from find_loud(record, most=most)


def never_fires(record: Any, *, most: float = 50) -> Any:
    yield from find_loud(record, most=1e9)


def fires_everywhere_with_a_baseline(record: Any, *, baseline: Any = None, most: float = 50) -> Any:
    yield from find_loud(record, most=most if baseline is None else 0.5)


def two_lines(record: Any, *, most: float = 50) -> Any:
    yield from find_loud(record, most=most, message="is\nloud")


def no_advice(record: Any, *, most: float = 50) -> Any:
    yield from find_loud(record, most=most, advice="")


def no_numbers(record: Any, *, most: float = 50) -> Any:
    yield from find_loud(record, most=most, evidence={"why": "loud"})


def fatal(record: Any, *, most: float = 50) -> Any:
    yield from find_loud(record, most=most, severity="fatal")


def no_symptom(record: Any, *, most: float = 50) -> Any:
    yield from (found.message for found in find_loud(record, most=most))


def leaves(record: Any, *, most: float = 50) -> Any:
    if list(find_loud(record, most=most)):
        sys.exit(3)
    yield from ()


def no_mapping(record: Any, *, most: float = 50) -> Any:
    yield from find_loud(record, most=most, evidence=3)


def named_place(record: Any, *, most: float = 50) -> Any:
    yield from (replace(found, place="head") for found in find_loud(record, most=most))


def elsewhere(record: Any, *, most: float = 50) -> Any:
    for found in find_loud(record, most=most):
        yield replace(found, place=replace(found.place, name="tail"))


def changes_the_record(record: Any, *, most: float = 50) -> Any:
    for place in module_places(record):
        place.entry.stats._items["seen"] = 1
    yield from find_loud(record, most=most)


def loud_series(series: Any, *, most: float = 50) -> Any:
    yield from find_loud(series[-1], most=most)


SERIES = {
    "fires_on": lambda: make_series(healthy_record(), change_module(healthy_record(), "head", rms=70.0)),
    "silent_on": lambda: make_series(healthy_record(), healthy_record()),
}


@pytest.mark.parametrize(
    ("function", "changed", "wrong"),
    [
        (fires_on_healthy, {}, "fires on its example `silent_on`: lifter.conv is loud"),
        (fires_on_healthy, {"silent_on": lambda: set_step(make_quiet(), 1)}, "fires on a healthy record"),
        (fires_on_null, {}, "fires on a record whose statistics are all null: the model is quiet"),
        (raises_on_null, {}, "given a record whose statistics are all null, raised TypeError"),
        (never_fires, {}, "finds nothing in its example `fires_on`"),
        (fires_everywhere_with_a_baseline, {}, "fires on a healthy record with itself as baseline"),
        (two_lines, {}, "its message must be one line of text"),
        (no_advice, {}, "its advice must be one line of text"),
        (no_numbers, {}, "its evidence holds no number"),
        (fatal, {}, "severity 'fatal' is none of note, warning, error"),
        (no_symptom, {}, "yields a str, not a Symptom"),
        (elsewhere, {}, "names 'tail', which is not in the record"),
        (changes_the_record, {}, "changes the record that it reads"),
        (sound, {"fires_on": None}, "give @rule(…) the argument `fires_on`"),
        (sound, {"silent_on": None}, "give @rule(…) the argument `silent_on`"),
        (sound, {"fires_on": lambda: 1 / 0}, "`fires_on` raised ZeroDivisionError"),
        (sound, {"fires_on": lambda: sys.exit(2)}, "`fires_on` raised SystemExit: 2"),
        (leaves, {}, "its function, given its example `fires_on`, raised SystemExit: 3"),
        (no_mapping, {}, "its evidence is 3, not a mapping"),
        (named_place, {}, "the place of a symptom is 'head', not a Place"),
        (sound, {"fires_on": lambda: [healthy_record()]}, "`fires_on` must return a record"),
        (sound, {"text": "Formula: most. Default: 50."}, "its docstring does not say 'False alarm when'"),
        (sound, {"text": TEXT.replace("most", "limit")}, "does not explain the threshold 'most'"),
        (sound, {"thresholds": {"most": float("nan")}}, "the default of 'most' is nan"),
        (loud_series, SERIES, "must name the `record` of the series"),
        (loud_series, SERIES | {"fires_on": lambda: [1, 2]}, "must return a list of records, returned"),
        (loud_series, {}, "must return the list of records of a series"),
        (loud_series, SERIES | {"fires_on": lambda: make_series(healthy_record())}, "two records or more"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_the_tester_says_in_one_line_what_is_wrong(
    function: Callable[..., Any], changed: dict[str, Any], wrong: str
) -> None:
    check_rule(make_rule(sound))
    with pytest.raises(AssertionError) as caught:
        check_rule(make_rule(function, **changed))
    [line] = str(caught.value).splitlines()
    assert line.startswith(f"rule {function.__name__}: ")
    assert re.search(wrong.replace("(…)", r"\(…\)"), line), line


def make_quiet() -> Any:
    record = healthy_record()
    for module in record.modules:
        record = change_module(record, module.name, rms=0.1)
    return record


def test_a_plain_function_is_refused_with_what_to_do() -> None:
    with pytest.raises(AssertionError, match=r"^find_loud is not a rule: put @fno_telemetry.diagnosis.rule"):
        check_rule(find_loud)  # type: ignore[arg-type]


def test_an_unknown_topic_and_a_threshold_that_is_no_number_are_refused_at_once() -> None:
    with pytest.raises(
        OptionError, match=r"'value' is not a topic of rules\. Did you mean values\? Known: input, "
    ):
        rule(about="value")(sound)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="'gradient' is not a topic"):
        Consequences(about=("gradient",))  # type: ignore[arg-type]

    def worded(record: Any, *, most: Any = "loud") -> Any:
        yield from find_loud(record, most=1)

    with pytest.raises(TypeError, match="rule worded: the default of threshold most must be a number"):
        rule(about="values")(worded)


def test_a_misspelled_number_of_an_example_is_refused_and_one_of_another_package_is_not() -> None:
    record = healthy_record()
    with pytest.raises(OptionError, match="no number of the record is called 'rmz'; did you mean 'rms'"):
        change_module(record, "blocks.1.local", rmz=1.0)
    with pytest.raises(OptionError, match="did you mean 'class_name'"):
        change_module(record, "blocks.1.local", clas_name="Linear")
    with pytest.raises(OptionError, match="did you mean 'gain'"):
        change_block(record, 0, gainn=1.0)
    assert change_module(record, "head", loudness=2.0).module("head").stats["loudness"] == 2.0
    with_own = replace(record, quantities=(Quantity(name="rmz", title="another size"),))
    assert change_module(with_own, "head", rmz=2.0).module("head").stats["rmz"] == 2.0
