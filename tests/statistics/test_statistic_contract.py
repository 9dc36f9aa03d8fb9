"""What every statistic promises, whichever it is: built in, or of another package."""

import sys
from dataclasses import dataclass

import pytest
import torch

from fno_telemetry import plugins
from fno_telemetry.quantities import Quantity, select
from fno_telemetry.statistics.contract import Summary
from fno_telemetry.testing.statistics import check_statistic


@pytest.mark.parametrize("name", plugins.names("statistics"))
def test_every_statistic_keeps_the_contract(name):
    statistic = plugins.load("statistics", name)()
    assert statistic.name == name
    check_statistic(statistic)


@dataclass(frozen=True)
class PeakState:
    peak: torch.Tensor

    def merge(self, other):
        return PeakState(torch.maximum(self.peak, other.peak))


class Peak:
    name, of, needs = "largest", "tensor", ()
    quantities = (Quantity(name="largest", title="largest |x|"),)

    def measure(self, activation):
        values = activation.values
        return PeakState(values.abs().amax() if values.numel() else torch.zeros((), dtype=values.dtype))

    def summarize(self, state, known):
        return Summary({"largest": float(state.peak)})


def test_a_right_one_passes():
    check_statistic(Peak(), lambda tensor: {"largest": float(tensor.abs().nan_to_num(0, 0, 0).max())})


@dataclass(frozen=True)
class Keeps:
    value: torch.Tensor

    def merge(self, other):
        return self


class KeepsTheFirst(Peak):
    def measure(self, activation):
        return Keeps(super().measure(activation).peak)

    def summarize(self, state, known):
        return Summary({"largest": float(state.value)})


class Looks(Peak):
    def measure(self, activation):
        float(activation.field.real.sum())
        return super().measure(activation)


class Writes(Peak):
    def measure(self, activation):
        activation.field.mul_(2)
        return super().measure(activation)


class GivesMore(Peak):
    def summarize(self, state, known):
        return Summary({"largest": float(state.peak), "other": 1.0})


class NotFinite(Peak):
    def summarize(self, state, known):
        return Summary({"largest": float("nan")})


class WithoutReason(Peak):
    def summarize(self, state, known):
        return Summary({"largest": None})


class OfNothing(Peak):
    of = "feelings"


class NeedsAStranger(Peak):
    needs = ("stranger",)


class Twice(Peak):
    quantities = (*select("rms"), *select("rms"))


class Divides(Peak):
    def measure(self, activation):
        return 1 / 0


class Leaves(Peak):
    def measure(self, activation):
        sys.exit(1)


class SummarizesNothing(Peak):
    def summarize(self, state, known):
        return None


class NeedsNone(Peak):
    needs = None


class NeedsANumber(Peak):
    needs = 5


class NeedsAList(Peak):
    needs = ["values"]  # noqa: RUF012 - the mistake


class NeverApplies(Peak):
    def measure(self, activation):
        return None


class OtherValues(Peak):
    name = "values"


class Overwrites(Peak):
    quantities = select("rms")

    def summarize(self, state, known):
        return Summary({"rms": float(state.peak)})


@pytest.mark.parametrize(
    ("statistic", "reason"),
    [
        (KeepsTheFirst(), "for all the data at once"),
        (Looks(), "looks at a value on the host"),
        (Writes(), "wrote into the tensor"),
        (GivesMore(), "declares"),
        (NotFinite(), "no finite number"),
        (WithoutReason(), "without a reason"),
        (OfNothing(), "its `of` is 'feelings'"),
        (NeedsAStranger(), "no statistic"),
        (Twice(), "contain a name twice"),
        (Divides(), "`measure` of largest, given float16 data, raised ZeroDivisionError: division by zero"),
        (Leaves(), "`measure` of largest, given float16 data, raised SystemExit: 1"),
        (SummarizesNothing(), "`summarize` returned a NoneType, not a Summary"),
        (NeedsNone(), "its `needs` is None; expected a tuple of names"),
        (NeedsANumber(), "its `needs` is 5; expected a tuple of names"),
        (NeedsAList(), "expected a tuple of names"),
        (NeverApplies(), "float32 data: `measure` returned None, .* for this data they do"),
        (OtherValues(), "values: a built-in statistic has this name"),
        (Overwrites(), "largest: it gives rms, as the built-in statistic 'values' does"),
        (object(), "it has no `name`"),
    ],
    ids=lambda given: type(given).__name__ if not isinstance(given, str) else "",
)
def test_a_wrong_one_fails_in_one_line(statistic, reason):
    with pytest.raises(AssertionError, match=reason) as caught:
        check_statistic(statistic)
    assert "\n" not in str(caught.value).split("\nassert")[0]


def test_one_that_the_reference_contradicts_fails():
    with pytest.raises(AssertionError, match="the reference says"):
        check_statistic(Peak(), lambda tensor: {"largest": 3.0})


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        (lambda tensor: {"largest": 1 / 0}, "the reference raised ZeroDivisionError"),
        (lambda tensor: sys.exit(4), "the reference raised SystemExit: 4"),
        (lambda tensor: None, "the reference returned a NoneType, not a mapping"),
        (lambda tensor: {"largest": "a"}, "the reference says that largest is 'a', which is no number"),
        (lambda tensor: {}, r"the reference gives \[\], and the statistic \['largest'\]"),
        (lambda tensor: {"other": 1.0}, r"the reference gives \['other'\]"),
        (5, "the reference is 5, not a function"),
    ],
)
def test_a_wrong_reference_fails_in_one_line(reference, reason):
    with pytest.raises(AssertionError, match=reason) as caught:
        check_statistic(Peak(), reference)
    assert "\n" not in str(caught.value)


def test_an_interrupt_ends_the_check():
    def interrupt(tensor):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_statistic(Peak(), interrupt)
