"""Which statistics a capture measures, whatever the order in which they are given."""

from dataclasses import dataclass
from itertools import permutations

import pytest
import torch
from torch import nn

import fno_telemetry as ft
from fno_telemetry.measuring.statistic_set import choose_statistics
from fno_telemetry.quantities import Quantity
from fno_telemetry.statistics.branches import Branches
from fno_telemetry.statistics.channels import Channels
from fno_telemetry.statistics.contract import Known, Summary, SummedState, keys_of
from fno_telemetry.statistics.samples import Samples
from fno_telemetry.statistics.values import Values
from fno_telemetry.statistics.weights import WeightNorm


def half_dead():
    """A layer of which half of the channels are dead."""
    layer = nn.Conv2d(1, 4, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.weight[:2] = 0
    return nn.Sequential(layer)


def test_a_statistic_alone_gives_its_numbers_although_it_needs_another(images):
    record = ft.capture(half_dead(), images, statistics=[Channels()])
    stats = record.module("0").stats
    assert tuple(stats) == keys_of(Channels())
    assert stats["dead_channel_fraction"] == stats["constant_channel_fraction"] == 0.5
    assert record.module("0").reasons == {"channel_rms_ratio": "a channel is zero"}
    assert record.layers == {}


@pytest.mark.parametrize("order", list(permutations((Channels(), Samples(), Values()))))
def test_the_order_in_which_statistics_are_given_changes_nothing(order, images):
    record = ft.capture(half_dead(), images, statistics=order)
    expected = ft.capture(half_dead(), images)
    wanted = {key for statistic in order for key in keys_of(statistic)}
    assert {key: expected.module("0").stats[key] for key in wanted} == record.module("0").stats


def test_statistics_of_every_kind_can_be_chosen(small_network, images):
    record = ft.capture(small_network(), images, statistics=[WeightNorm(), Branches()])
    assert {key for module in record.modules for key in module.stats} == {"weight_norm"}
    assert record.blocks
    assert all(set(block.stats) == set(keys_of(Branches())) for block in record.blocks)
    assert record.input.stats == {}


@dataclass(frozen=True)
class Sum(SummedState):
    total: torch.Tensor


class Extra:
    """A statistic that a package brings, of any kind."""

    def __init__(self, name, of, needs=()):
        self.name, self.of, self.needs = name, of, needs
        self.quantities = (Quantity(name=f"{name}_number", title=f"the number of {name}"),)

    def measure(self, subject):
        return Sum(torch.ones((), dtype=torch.float64))

    def summarize(self, state, known: Known):
        return Summary({f"{self.name}_number": float(state.total) + len(known.numbers)})


class Impostor(Extra):
    """Gives a number that a built-in statistic gives."""

    def __init__(self):
        super().__init__("impostor", "tensor")
        self.quantities = (Quantity(name="rms", title="mine"),)


class Talkative(Extra):
    """Gives a number that it does not declare."""

    def summarize(self, state, known: Known):
        return Summary({**super().summarize(state, known).stats, "more\nthan": 1.0})


KINDS = ("tensor", "spectral_input", "weights", "branch_sum", "residual_update", "block")


@pytest.mark.parametrize("kind", KINDS)
def test_a_statistic_of_another_package_is_measured_whatever_it_is_of(kind, small_network, images):
    extra = Extra("extra", kind)
    record = ft.capture(small_network(), [images[:5], images[5:]], statistics=[extra])
    entries = [*record.modules, *record.blocks]
    found = [entry for entry in entries if "extra_number" in entry.stats]
    # Weights are measured once, everything else once a batch.
    assert {entry.stats["extra_number"] for entry in found} == {1.0 if kind == "weights" else 2.0}
    assert record.quantities == extra.quantities


@pytest.mark.parametrize("kind", ["output_gradient", "parameter_gradients", "branch_gradients"])
def test_statistics_of_gradients_are_measured_where_there_is_a_loss(kind, small_network, images):
    def loss(output, batch):
        return output.square().mean()

    record = ft.capture(small_network(), images, statistics=[Extra("extra", kind)], loss=loss)
    entries = record.blocks if kind == "branch_gradients" else record.modules
    assert [entry for entry in entries if "extra_number" in entry.stats]
    without = ft.capture(small_network(), images, statistics=[Extra("extra", kind)])
    assert not any("extra_number" in entry.stats for entry in (*without.modules, *without.blocks))


def test_a_statistic_reads_the_numbers_that_it_needs_and_no_others(images):
    alone = ft.capture(half_dead(), images, statistics=[Extra("extra", "tensor"), Values()])
    assert alone.module("0").stats["extra_number"] == 1
    needing = ft.capture(half_dead(), images, statistics=[Extra("extra", "tensor", ("samples",)), Values()])
    assert needing.module("0").stats["extra_number"] == 1 + len(keys_of(Samples()))


def test_what_is_needed_is_measured_before_and_not_recorded():
    chosen, problems = choose_statistics([Channels()])
    assert [statistic.name for statistic in chosen.statistics] == ["values", "channels"]
    assert chosen.recorded == {"channels"}
    assert problems == []


def test_a_number_that_is_not_declared_costs_those_of_its_statistic(images):
    record = ft.capture(half_dead(), images, statistics=[Talkative("extra", "tensor"), Values()])
    stats = record.module("0").stats
    assert stats["extra_number"] is None
    assert stats["rms"] is not None
    assert "more\nthan" not in stats
    assert any("'more\\nthan' is not one of its quantities" in entry["reason"] for entry in record.errors)


@pytest.mark.parametrize(
    ("statistics", "message"),
    [
        ([Values(), Values()], "`statistics` holds 'values' twice"),
        ([nn.ReLU()], "`statistics` holds a ReLU, which is not a statistic: it has no `name`"),
        ([Extra("extra", "feelings")], "its `of` is 'feelings'; expected one of tensor, "),
        ([Extra("extra", "tensor", ("stranger",))], "'extra' needs 'stranger', which cannot be loaded"),
        ([Extra("extra", "tensor", ("weight_norm",))], "which is summarized later"),
        ([Extra("a", "tensor", ("b",)), Extra("b", "tensor", ("a",))], "in a circle: a → b → a"),
        ([Extra("extra", "tensor", "values")], "expected a tuple of names"),
        ([Values(), Impostor()], "the statistics 'values' and 'impostor' both give 'rms'"),
        (Values(), "`statistics` is 'values'; expected a list of statistics"),
        ([Values], "`statistics` holds the class Values; expected an object of it"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(statistics, message, images):
    with pytest.raises(ft.OptionError) as caught:
        ft.capture(half_dead(), images, statistics=statistics)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
