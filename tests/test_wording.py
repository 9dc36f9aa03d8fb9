"""Numbers and names as tables and messages show them."""

import json
import math

import pytest

from fno_telemetry.comparison import compare
from fno_telemetry.diagnosis.example_records import change_block, change_module, healthy_record
from fno_telemetry.findings import Finding, describe_evidence
from fno_telemetry.records import FrozenMapping
from fno_telemetry.sinks.tensorboard import markdown
from fno_telemetry.wording import (
    describe_error,
    find_near_names,
    format_number,
    format_percent,
    hint_at_names,
)
from fno_telemetry_cli.showing.tables import number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.123"),
        (123456, "123456"),
        (123456.0, "1.23e+05"),
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (1 - 1e-12, "1"),
        (0.99999, "0.99999"),
        (0.9996, "0.9996"),
        (1 - 2**-24, "0.999999"),
        (1.0004, "1.0004"),
        (1 + 2**-24, "1.000001"),
        (-0.99999, "-0.99999"),
        (math.inf, "inf"),
    ],
)
def test_a_number_has_three_digits_and_is_1_only_if_it_is_1(value, text):
    assert format_number(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.1234567, "12.3 %"), (1, "100 %"), (0.99999, "99.999 %"), (1 - 1e-9, "99.9999 %"), (0.004, "0.4 %")],
)
def test_a_share_is_100_percent_only_if_it_is_all(share, text):
    assert format_percent(share) == text


def test_whatever_the_number_its_text_is_close_and_on_its_side_of_1():
    for exponent in range(1, 10):
        for value in (1 - 3 * 10.0**-exponent, 1 + 3 * 10.0**-exponent):
            for digits in (3, 4, 6):
                shown = float(format_number(value, digits))
                assert shown == pytest.approx(value, rel=5e-3)
                assert (shown > 1) == (value > 1) and shown != 1


def test_every_text_about_a_record_tells_0_99999_from_1():
    record = change_module(
        change_block(healthy_record(), 1, spectral_share=0.99999), "head", low_frequency_fraction=0.99999
    )
    evidence = FrozenMapping({"finite_fraction": 0.99999, "nan_count": 1})
    finding = Finding(
        id="non_finite:head",
        rule="non_finite",
        severity="error",
        layer="head",
        step=None,
        report=None,
        message="has NaN",
        evidence=evidence,
        advice="Look before it.",
    )
    assert describe_evidence(finding) == "finite_fraction = 0.99999, nan_count = 1"
    assert number(0.99999) == "0.99999"
    assert markdown.table(record).count("0.99999") == 2
    changes = [change for layer in compare(healthy_record(), record).blocks for change in layer.changes]
    assert "spectral_share 0.5 → 0.99999" in [change.message for change in changes]


@pytest.mark.parametrize(
    ("name", "known", "near"),
    [
        ("dead_layr", ["trend", "dead_layer", "dead_channels"], ["dead_layer"]),
        ("FNO", ["hybrid", "fno"], ["fno"]),
        ("modes", ["n_modes_height", "hidden_channels"], ["n_modes_height"]),
        ("X", ["x", "X "], ["x", "X "]),
        ("a", ["diffraction"], []),
        ("", ["diffraction"], []),
    ],
)
def test_near_names_are_those_that_look_alike_whatever_is_in_capitals(name, known, near):
    assert find_near_names(name, known) == near


def test_a_hint_lists_what_there_is_as_far_as_that_helps():
    many = [f"{letter}{index}" for letter in "abc" for index in range(20)]
    assert hint_at_names("jsn", ["json", "wandb"]) == "Did you mean json? Known: json, wandb."
    assert hint_at_names("xyz", ["json", "wandb"]) == "Known: json, wandb."
    assert hint_at_names("layer", ["layer1", *many]) == "Did you mean layer1?"
    assert hint_at_names("xyz", many, most=2) == "Known: a0, a1 and 58 more."
    assert hint_at_names("xyz", []) == "There are none."
    assert hint_at_names("xyz", ["\x1b[31m"]) == "Known: '\\x1b[31m'."


def test_an_error_is_told_with_the_line_of_the_users_code_not_of_a_library():
    try:
        json.loads("[")
    except ValueError as error:
        line = error.__traceback__.tb_lineno
        assert describe_error(error).endswith(f"(test_wording.py, line {line})")
    assert describe_error(KeyError("a")) == "KeyError: 'a'"


@pytest.mark.parametrize(
    ("value", "text"), [(0.99996, "1"), (1.0004, "1"), (-0.9999, "-1"), (0.995, "0.995"), (-0.0, "0")]
)
def test_where_one_means_nothing_in_particular_a_number_close_to_it_is_one(value, text):
    assert format_number(value, keeps_one=False) == text
