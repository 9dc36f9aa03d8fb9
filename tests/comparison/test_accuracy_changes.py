"""What `compare` says of the loss and of the error against the target."""

from dataclasses import replace

import pytest

import fno_telemetry as ft
from fno_telemetry.diagnosis.example_records import add_target, add_training, healthy_record, make_series
from fno_telemetry.records import CaptureRecord, freeze_mapping


def with_error(error: float) -> CaptureRecord:
    return add_target(healthy_record(), relative_l2=error)


def test_an_error_that_grew_is_worse_though_no_layer_differs() -> None:
    found = ft.compare(with_error(0.02), with_error(0.3))
    assert found.worse and found.severity == "warning"
    assert found.verdict.startswith("worse: relative L2 error 0.02 → 0.3; the layers are the same")
    [change] = found.accuracy
    assert (change.statistic, change.before, change.after) == ("relative_l2", 0.02, 0.3)
    assert change.message in str(found)


@pytest.mark.parametrize(("before", "after"), [(0.3, 0.02), (0.2, 0.29), (0.001, 0.009), (0.2, 0.2)])
def test_an_error_that_fell_or_hardly_grew_is_not_worse(before: float, after: float) -> None:
    found = ft.compare(with_error(before), with_error(after))
    assert not found.worse
    assert [change.after for change in found.accuracy] == ([] if before == after else [after])


def test_the_limit_can_be_given() -> None:
    pair = with_error(0.2), with_error(0.29)
    assert ft.compare(*pair, thresholds=ft.Thresholds(error=1.4)).worse
    with pytest.raises(ft.OptionError, match="threshold error = 1; expected a factor above 1"):
        ft.Thresholds(error=1)


def test_an_error_on_other_samples_is_said_and_not_judged() -> None:
    other = replace(with_error(0.9), provenance=freeze_mapping({"input": {"digest": "sha256:other"}}))
    found = ft.compare(with_error(0.1), other, allow_different_input=True)
    assert not found.worse
    assert [change.severity for change in found.accuracy] == ["note"]


def test_steps_of_a_training_are_said_and_not_judged() -> None:
    steps = [add_training(with_error(error), loss=error**2) for error in (0.1, 0.5)]
    found = ft.compare(*make_series(*steps))
    assert not found.worse
    assert [change.statistic for change in found.accuracy] == ["loss", "relative_l2"]


def test_a_series_tells_the_change_from_first_to_last() -> None:
    found = ft.compare(*make_series(*map(with_error, (0.5, 0.9, 0.1))))
    assert found.verdict.startswith("no break over 3 steps")
    assert [(change.before, change.after) for change in found.accuracy] == [(0.5, 0.1)]


def test_in_a_group_a_run_whose_error_grew_is_worse() -> None:
    found = ft.compare(with_error(0.1), with_error(0.1), with_error(0.4), group=True)
    assert found.verdict.startswith("1 of 2 runs are worse than the baseline")
