"""A watch that begins in the middle: at a later step, or in a forward that runs already."""

import pytest
import torch
from torch import nn

import fno_telemetry as ft
from fno_telemetry.testing.in_memory_sink import InMemorySink


@pytest.mark.parametrize(("first", "expected"), [(0, [0, 4]), (4, [4, 8]), (5, [8, 12])])
def test_after_a_checkpoint_only_due_steps_are_recorded(first: int, expected: list[int]) -> None:
    model, sink = nn.Sequential(nn.Conv2d(1, 1, 1)), InMemorySink()
    with ft.watch(model, [sink], every=4) as watch:
        watch.resume(first)
        for step in range(first, first + 8):
            model(torch.rand(2, 1, 4, 4)).sum().backward()
            watch.step(step)
    assert [record.step for record in sink.records] == expected


def test_a_forward_that_has_begun_is_measured_as_any_other() -> None:
    torch.manual_seed(0)
    model, sink = nn.Sequential(nn.Conv2d(1, 2, 1), nn.GELU()), InMemorySink()
    made = []

    def begin(module, args, kwargs):
        if not made:
            made.append(ft.watch(model, [sink], every=1))
            made[0].begin_forward(module, args, kwargs)

    handle = model.register_forward_pre_hook(begin, with_kwargs=True)
    x = torch.rand(2, 1, 4, 4)
    for step in range(2):
        model(x).sum().backward()
        made[0].step(step)
        model.zero_grad()
    handle.remove()
    made[0].close()
    one, other = sink.records
    assert one.training["forwards"] == other.training["forwards"] == 1
    assert one.module("0").stats == other.module("0").stats
    assert not model._forward_pre_hooks and not model._forward_hooks


@pytest.mark.parametrize("resumes", [False, True])
def test_steps_that_do_not_go_on_are_told_once_unless_the_loop_resumes(tmp_path, resumes: bool) -> None:
    model, path = nn.Sequential(nn.Conv2d(1, 1, 1)), tmp_path / "history.jsonl"
    losses = iter(range(100))
    with ft.watch(model, [ft.HistoryFile(path)], every=2) as watch:
        for _ in range(3):
            for step in range(5):
                model(torch.rand(2, 1, 4, 4)).sum().backward()
                watch.step(step, loss=next(losses))
            if resumes:
                watch.resume(0)
    told = (
        "step 0 comes after step 4: of two records of one step only the later one counts; let steps go on "
        "over epochs, or call `resume(0)` after a restart"
    )
    assert watch.problems == ([] if resumes else [told])
    # Each step once, as it was when it was recorded last; without `resume`, step 5 was expected after 4.
    records = ft.load_history(path)
    last = [(0, 10.0 if resumes else 0.0), (2, 12.0), (4, 14.0)]
    assert [(record.step, record.summary["loss"]) for record in records] == last
