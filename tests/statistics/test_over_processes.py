"""States of several processes, combined by a maximum and a sum: the whole's answer, or null with a reason."""

import json
import math
from dataclasses import dataclass
from functools import reduce
from typing import Annotated, Any

import pytest
import torch

from fno_telemetry import plugins
from fno_telemetry.statistics.activation import Activation, Layout
from fno_telemetry.statistics.contract import (
    Empty,
    Known,
    MergedBy,
    SummedState,
    Undefined,
    merge_states,
    summarize_state,
)
from fno_telemetry.statistics.over_processes import combine_states, describe, join
from fno_telemetry.statistics.samples import Samples
from fno_telemetry.statistics.values import Values
from fno_telemetry.testing.subjects import MERGED_OVER_BATCHES, example_data, make_bands, make_subject

NAMES = [name for name in plugins.STATISTICS if plugins.load("statistics", name)().of in MERGED_OVER_BATCHES]


@pytest.mark.parametrize("name", NAMES)
def test_every_built_in_statistic_combines_over_processes(name: str) -> None:
    statistic = plugins.load("statistics", name)()
    for data in example_data():
        states = [statistic.measure(make_subject(statistic.of, part)) for part in data.split((1, 3, 2))]
        merged = reduce(merge_states, states)
        combined = combine_states([None, *states])
        assert type(combined) is type(merged), data.name
        described = [describe(state) for state in states]
        assert json.loads(json.dumps(reduce(join, described))) == reduce(join, reversed(described))
        known = Known(samples=6, bands=make_bands())
        one, other = (summarize_state(statistic, state, known) for state in (merged, combined))
        assert other.histogram == one.histogram and other.sketch == one.sketch
        for key, value in one.stats.items():
            found = other.stats[key]
            close = found == value
            if found is not None and value is not None:
                close = math.isclose(found, value, rel_tol=1e-9, abs_tol=1e-12)
            assert close, (data.name, key, found, value)


def measure(statistic: Any, tensor: torch.Tensor) -> Any:
    return statistic.measure(Activation(tensor, Layout(0, 1, (2, 3))))


def test_a_small_spread_far_from_zero_survives() -> None:
    generator = torch.Generator().manual_seed(3)
    noise = 1e-9 * torch.randn((4, 2, 8, 8), generator=generator, dtype=torch.float64)
    tensor = 1e3 + noise
    for statistic, key in ((Values(), "std"), (Samples(), "sample_variation")):
        whole = summarize_state(statistic, measure(statistic, tensor)).stats[key]
        parts = [measure(statistic, part) for part in torch.split(tensor, [1, 3])]
        assert summarize_state(statistic, combine_states(parts)).stats[key] == pytest.approx(whole, rel=1e-5)


def test_huge_and_tiny_values_neither_overflow_nor_vanish() -> None:
    for scale in (1e200, 1e-200):
        tensor = scale * torch.arange(1.0, 33.0, dtype=torch.float64).reshape(2, 1, 4, 4)
        parts = [measure(Values(), part) for part in torch.split(tensor, [1, 1])]
        stats = summarize_state(Values(), combine_states(parts)).stats
        assert stats["rms"] == pytest.approx(scale * math.sqrt(sum(i * i for i in range(1, 33)) / 32))


def test_a_position_with_holes_in_one_process_counts_its_own_samples() -> None:
    tensor = torch.randn((6, 2, 4, 4), generator=torch.Generator().manual_seed(4))
    tensor[1, 0, 2, 2] = math.nan
    whole = summarize_state(Samples(), measure(Samples(), tensor)).stats
    parts = [measure(Samples(), part) for part in torch.split(tensor, [4, 2])]
    assert summarize_state(Samples(), combine_states(parts)).stats == pytest.approx(whole)


def test_undefined_wins_over_a_state_and_a_state_over_nothing() -> None:
    state = measure(Values(), torch.ones(2, 3, 4, 4))
    assert combine_states([state, Undefined("no"), Undefined("then")]) == Undefined("no")
    assert combine_states([None, Empty(), None]) == Empty()
    assert combine_states([None, None]) is None
    combined = combine_states([Empty(), None, state])
    assert summarize_state(Values(), combined) == summarize_state(Values(), state)


def test_states_of_other_shapes_are_null_with_the_reason() -> None:
    parts = [measure(Samples(), torch.ones(2, 3, size, 4)) for size in (4, 5)]
    assert combine_states(parts) == Undefined("its shape differs between the processes")


@dataclass(frozen=True)
class Declared(SummedState):
    total: torch.Tensor
    most: Annotated[torch.Tensor, MergedBy(torch.maximum)]


@dataclass(frozen=True)
class OfItsOwn:
    total: torch.Tensor

    def merge(self, other: "OfItsOwn") -> "OfItsOwn":
        return OfItsOwn(self.total + other.total)


@dataclass(frozen=True)
class LastOne(SummedState):
    last: Annotated[Any, MergedBy(lambda first, second: second)]


def test_a_state_that_declares_nothing_is_null_with_that_reason() -> None:
    found = combine_states([OfItsOwn(torch.ones(())), None])
    assert found == Undefined("OfItsOwn does not say how the states of several processes combine")
    assert combine_states([Declared(torch.ones(2), torch.ones(2))] * 3).total.tolist() == [3, 3]


def test_a_rule_that_no_collective_has_is_null_with_that_reason() -> None:
    found = combine_states([LastOne(torch.ones(())), None])
    assert found == Undefined("the field 'last' of LastOne does not say how it combines over processes")
