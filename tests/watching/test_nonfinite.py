"""Trainings whose numbers are no longer finite: the module and step where it began are named."""

import math

import pytest
import torch
from torch import nn

import fno_telemetry as ft
from fno_telemetry.testing.in_memory_sink import InMemorySink


def make() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 1, 1)]
    return nn.Sequential(*layers)


def train(network, watch=None, bad=None, bad_loss=None, steps=9):
    """Train, and put a NaN into one weight before the step `bad`; return losses and the state at the end."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(3)
    losses = []
    for step in range(steps):
        if step == bad:
            with torch.no_grad():
                network[3].weight[1, 2] = math.nan
        x = torch.randn(3, 1, 5, 5, generator=generator)
        loss = (network(x) - x).square().mean()
        if step == bad_loss:
            loss = loss * math.inf
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if watch is not None:
            watch.step(step, loss=loss)
    return losses, [p.clone() for p in network.state_dict().values()], torch.get_rng_state()


def test_the_forward_is_measured_again_where_it_began(tmp_path):
    network, sink = make(), InMemorySink()
    with ft.watch(network, [sink], every=3, on_nonfinite="dump", keep=2, folder=tmp_path) as watch:
        found = train(network, watch, bad=7)
    [problem] = watch.problems
    path = tmp_path / "nonfinite.step7.jsonl"
    assert problem == (
        "the output of the model at step 7 is not finite: the first values that are not come from '3', "
        f"75 of 300; see {path}"
    )
    records = ft.load_history(path)
    assert [record.step for record in records] == [3, 6, 7]
    last = records[-1]
    assert last.training["nonfinite"] == "output"
    counts = {module.name: module.stats["nan_count"] for module in last.modules}
    assert counts == {"0": 0, "1": 0, "2": 0, "3": 75, "4": 75}
    # The loop goes on as without.
    expected = train(make(), bad=7)
    assert all(
        torch.equal(one, other) or one.isnan().any() for one, other in zip(expected[1], found[1], strict=True)
    )
    assert torch.equal(expected[2], found[2])
    assert expected[0][:7] == found[0][:7]


def test_a_watched_loop_is_the_same_while_all_is_finite(tmp_path):
    network = make()
    with ft.watch(network, every=3, on_nonfinite="dump", folder=tmp_path) as watch:
        found = train(network, watch)
    expected = train(make())
    assert watch.problems == [] and not list(tmp_path.iterdir())
    assert expected[0] == found[0]
    assert all(torch.equal(one, other) for one, other in zip(expected[1], found[1], strict=True))


def test_a_loss_that_is_not_finite_alone_is_told(tmp_path):
    network = make()
    with ft.watch(network, every=None, on_nonfinite="dump", folder=tmp_path) as watch:
        train(network, watch, bad_loss=4, steps=5)
    assert watch.problems == ["the loss of step 4 is not finite, while the outputs of the model are"]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"on_nonfinite": "stop"}, "`on_nonfinite` is 'stop'; expected 'dump' or None"),
        ({"keep": -1}, "`keep` is -1; expected a whole number, 0 or more"),
    ],
)
def test_what_cannot_be_used_is_refused(options, line):
    with pytest.raises(ft.OptionError) as caught:
        ft.watch(make(), **options)
    assert str(caught.value) == line


def test_a_history_that_is_taken_for_a_report_is_told(tmp_path):
    network = make()
    with ft.watch(network, every=3, on_nonfinite="dump", keep=2, folder=tmp_path) as watch:
        train(network, watch, bad=4)
    with pytest.raises(ft.ReportError, match="load_history` reads histories"):
        ft.load_report(tmp_path / "nonfinite.step4.jsonl")


def test_in_a_due_step_the_dump_does_not_take_its_update_away(tmp_path):
    network, sink = make(), InMemorySink()
    with ft.watch(network, [sink], every=1, on_nonfinite="dump", folder=tmp_path) as watch:
        train(network, watch, bad=2, steps=3)
    assert [record.step for record in ft.load_history(tmp_path / "nonfinite.step2.jsonl")] == [0, 1, 2]
    layer = sink.records[2].module("0")
    assert layer.reasons["update_to_weight"] == "a parameter is not finite"
