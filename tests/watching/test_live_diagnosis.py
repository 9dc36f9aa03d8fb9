"""What a watched loop is told while it runs: each new warning once, at the step at which it is seen."""

import logging
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

import fno_telemetry as ft
from fno_telemetry.diagnosis import change_module, healthy_record, set_step
from fno_telemetry.diagnosis.example_records import add_target
from fno_telemetry.findings import count_causes_by_key
from fno_telemetry.records import FrozenMapping
from fno_telemetry.testing.in_memory_sink import InMemorySink
from fno_telemetry.watching import delivery, live_diagnosis
from fno_telemetry.watching.live_diagnosis import LASTING, MOST_KEPT, LiveDiagnosis

BLOW_UP = 12
HARDLY_LEARNS = 10  # steps after which `parameters_stand_still` judges


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.WARNING, "fno_telemetry")
    return lambda: [each.getMessage() for each in caplog.records if each.name == "fno_telemetry"]


def train(network: nn.Module, watch: ft.Watch | None = None, number: int = 20) -> list[torch.Tensor]:
    """Train on smooth fields, blow the weights up in the middle, and return the weights."""
    generator = torch.Generator().manual_seed(0)
    fields = torch.randn(4, 1, 4, 4, generator=generator)
    x = nn.functional.interpolate(fields, (16, 16), mode="bilinear")
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    for step in range(number):
        if step == BLOW_UP:
            with torch.no_grad():
                network.get_submodule("lifter").conv1.weight.mul_(1e5)
        output = network(x)
        loss = output.square().mean()
        loss.backward()
        # So that the loop stays as it is after the blow-up.
        nn.utils.clip_grad_norm_(network.parameters(), 1e-3)
        optimizer.step()
        optimizer.zero_grad()
        if watch is not None:
            watch.step(step, loss=loss, output=output, target=torch.zeros_like(output))
    return [parameter.detach().clone() for parameter in network.parameters()]


@pytest.fixture
def network(small_network):
    def build() -> nn.Module:
        torch.manual_seed(0)
        return small_network("fno")

    return build


def test_weights_that_are_blown_up_are_said_once_at_their_step_and_are_in_every_sink(
    network, said, tmp_path, read_events, monkeypatch
):
    monkeypatch.setattr(delivery, "MOST_WAITING", 100)  # on a busy machine the loop is faster
    sink = InMemorySink()
    watched = network()
    with (
        SummaryWriter(str(tmp_path)) as writer,
        ft.watch(watched, [sink, ft.TensorBoard(writer)], every=1, diagnose=True) as watch,
    ):
        found = train(watched, watch)
    assert all(torch.equal(one, other) for one, other in zip(found, train(network()), strict=True))
    assert watch.problems == []
    lines = said()
    about = [line for line in lines if "lifter.conv1" in line]
    assert about[0].startswith(f"fno-telemetry: step {BLOW_UP}: ")
    assert len(lines) == len(set(lines))
    assert all(line.startswith("fno-telemetry: step ") for line in lines)
    rules = [line.rpartition("(")[2].rpartition(")")[0] for line in about]
    assert rules[0] == "updates_too_large" and len(rules) == len(set(rules))  # the break follows from that
    assert [record.step for record in sink.records] == list(range(20))
    severe = [
        [each for each in record.findings if each.severity != "note" and each.layer == "lifter.conv1"]
        for record in sink.records
    ]
    assert not any(severe[:BLOW_UP]) and severe[BLOW_UP]
    errors = dict(read_events(tmp_path)["findings/error"])
    assert errors.keys() == set(range(20))
    # Each at the step at which it appeared: the rate is so tiny that the network hardly learns.
    assert {step: count for step, count in errors.items() if count} == {HARDLY_LEARNS: 1, BLOW_UP: 1}


def test_a_healthy_run_is_told_nothing(said):
    judge = LiveDiagnosis().judge
    for step in range(5):
        assert judge(set_step(healthy_record(), step)).findings == ()
    assert said() == []


def test_what_every_training_begins_with_is_said_only_if_it_lasts(said):
    judge = LiveDiagnosis().judge
    for step in range(LASTING + 3):
        record = add_target(healthy_record(), error_to_mean_predictor=1.0, output_to_target_rms=0.05)
        judge(set_step(record, step))
        # Step 0 is untrained: nothing is found there.
        assert len(said()) == (1 if step >= LASTING else 0), step
    assert "mean_predictor" in said()[0]


def dead(step: int) -> ft.CaptureRecord:
    return set_step(
        change_module(healthy_record(), "blocks.1.local", rms=0.0, abs_p99=0.0, max=0.0, min=0.0), step
    )


def test_what_may_be_a_start_from_zero_is_said_with_the_second_record(said):
    judge = LiveDiagnosis().judge
    assert judge(dead(0)).findings
    assert said() == []
    judge(dead(100))
    judge(dead(200))
    found = said()
    assert found and all(line.startswith("fno-telemetry: step 100: ") for line in found)


def test_a_fault_is_counted_at_the_step_at_which_it_appears_and_again_when_it_comes_back():
    judge = LiveDiagnosis().judge
    is_dead = {step: step in (200, 300, 400, 600, 700) for step in range(0, 800, 100)}
    judged = {
        step: judge(dead(step) if faulty else set_step(healthy_record(), step))
        for step, faulty in is_dead.items()
    }
    counted = [step for step, record in judged.items() if any(count_causes_by_key(record).values())]
    assert counted == [200, 600]
    assert all(bool(record.findings) == is_dead[step] for step, record in judged.items())
    for step, appeared in ((300, 200), (400, 200), (700, 600)):
        ids = {each.id for each in judged[appeared].findings}
        assert all(each.id.startswith(f"step{step}:") for each in judged[step].findings)
        assert all(each.follows_from in ids for each in judged[step].findings)


def test_after_a_restart_a_fault_is_counted_at_its_first_step_as_before():
    judge = LiveDiagnosis().judge
    for step in (0, 100, 200, 100):
        last = judge(dead(step) if step else set_step(healthy_record(), 0))
    assert sum(count_causes_by_key(last).values()) > 0  # step 100 is the first one that shows it
    assert sum(count_causes_by_key(judge(dead(200))).values()) == 0


def test_what_is_not_finite_is_said_at_once(said):
    LiveDiagnosis().judge(change_module(healthy_record(), "blocks.1.local", nan_count=3, finite_fraction=0.5))
    assert [line for line in said() if "(non_finite)" in line]


def test_stages_are_judged_apart(said):
    judge = LiveDiagnosis().judge

    def at(stage: str, step: int, scale: float) -> ft.CaptureRecord:
        record = change_module(set_step(healthy_record(), step), "blocks.1.local", rms=scale)
        return replace(record, training=FrozenMapping({"stage": stage}))

    judge(at("train", 0, 0.5))
    judge(at("val", 0, 0.4))
    for step in range(1, 6):
        judge(at("train", step, 0.5))
        judge(at("val", step, 0.4))
    assert said() == []


def test_few_records_are_kept_however_long_a_run_is(monkeypatch):
    lengths = []
    real = live_diagnosis.diagnose

    def counted(*records, **options):
        lengths.append((len(records), records[0].step))
        return real(*records, **options)

    monkeypatch.setattr(live_diagnosis, "diagnose", counted)
    judge = LiveDiagnosis().judge
    for step in range(MOST_KEPT + 10):
        judge(set_step(healthy_record(), step))
    assert max(lengths) == (MOST_KEPT + 2, 0)


def test_an_error_of_the_diagnosis_is_noted_and_the_record_is_written(network, monkeypatch):
    def fail(*records, **options):
        raise RuntimeError("broken")

    monkeypatch.setattr(live_diagnosis, "diagnose", fail)
    sink = InMemorySink()
    watched = network()
    with ft.watch(watched, [sink], every=1, diagnose=True) as watch:
        found = train(watched, watch, 3)
    assert all(torch.equal(one, other) for one, other in zip(found, train(network(), number=3), strict=True))
    [problem] = watch.problems
    assert problem.startswith("a record could not be diagnosed: RuntimeError: broken")
    assert [record.findings for record in sink.records] == [None] * 3


def test_after_a_restart_from_an_earlier_step_what_came_later_is_not_compared_with():
    judge = LiveDiagnosis().judge
    healthy = healthy_record()
    broken = change_module(healthy, "blocks.1.local", rms=40.0)
    for step in (0, 10):
        judge(set_step(healthy, step))
    assert "collapse_at_step" in {each.rule for each in judge(set_step(broken, 20)).findings}
    for step in (10, 20, 30):
        assert judge(set_step(healthy, step)).findings == ()
