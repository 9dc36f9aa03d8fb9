"""Loops with accelerate, watched: what is recorded, and that nothing changes."""

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from torch.utils.data import DataLoader

import fno_telemetry as ft
from darcy_flow import FNO, make_dataset
from fno_telemetry.errors import OptionError
from support import wandb_log

pytestmark = pytest.mark.filterwarnings("ignore")  # accelerate's advice on its own options

watch = ft.integrations.accelerate.watch


@pytest.fixture(autouse=True)
def _fresh_state():
    """Accelerators of a process share their state, such as the precision."""
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


def fno() -> nn.Module:
    return nn.Sequential(FNO(width=4, modes=3), nn.BatchNorm2d(1), nn.Dropout(0.1))


def train(accelerator, watched=None, build=fno, batches: int = 6, clip=None, problems=(), **options):
    """Train; return the losses of the batches, the state at the end, and the hooks that are left."""
    torch.manual_seed(1)
    model = build()
    model, optimizer, loader = accelerator.prepare(
        model,
        torch.optim.AdamW(model.parameters(), lr=1e-2),
        DataLoader(make_dataset(4 * batches, size=8), batch_size=4, shuffle=True),
    )
    losses = []
    watching = watched and watched(accelerator, model, optimizer=optimizer, **options)
    try:
        for x, y in loader:
            with accelerator.accumulate(model):
                output = model(x)
                loss = nn.functional.mse_loss(output.float(), y)
                accelerator.backward(loss)
                if clip is not None and accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad()
            losses.append(loss.item())
            if watching:
                watching.step(loss=loss, output=output, target=y)
    finally:
        if watching:
            watching.close()
            assert [problem[:14] for problem in watching.watch.problems] == list(problems)
    state = [*accelerator.unwrap_model(model).state_dict().values(), torch.get_rng_state()]
    return losses, state, [list(m._forward_pre_hooks) + list(m._forward_hooks) for m in model.modules()]


@pytest.mark.parametrize(
    ("options", "loop", "steps"),
    [
        ({}, {}, [0, 1, 3]),
        ({}, {"clip": 0.01}, [0, 1, 3]),
        ({"mixed_precision": "bf16"}, {}, [0, 1, 3]),
        # Of eight batches the last step has two.
        ({"gradient_accumulation_steps": 3}, {"batches": 8}, [0, 1]),
    ],
    ids=["plain", "clipped", "bfloat16", "accumulation"],
)
def test_a_watched_loop_is_bit_identical(sink, options, loop, steps) -> None:
    losses, state, hooks = train(Accelerator(cpu=True, **options), **loop)
    AcceleratorState._reset_state(True)
    found = train(Accelerator(cpu=True, **options), watch, sinks=[sink], every=3, first=2, **loop)
    assert found[0] == losses
    assert all(torch.equal(one, other) for one, other in zip(state, found[1], strict=True))
    assert found[2] == hooks
    assert [record.step for record in sink.records] == steps
    assert all(record.stage == "train" and record.errors == () for record in sink.records)
    assert all(record.module("0.projection").stats["grad_norm"] > 0 for record in sink.records)
    assert sink.records[0].training["learning_rates"] == (1e-2,)


def test_the_loss_of_an_accumulated_step_is_the_mean_of_its_batches(sink) -> None:
    losses, *_ = train(Accelerator(cpu=True, gradient_accumulation_steps=3), watch, sinks=[sink], every=1)
    means = [sum(losses[:3]) / 3, sum(losses[3:]) / 3]
    assert [record.summary["loss"] for record in sink.records] == pytest.approx(means)
    assert [record.training["forwards"] for record in sink.records] == [3, 3]


def test_gradients_are_recorded_without_the_factor_of_the_scaler(sink) -> None:
    for scale in (1.0, 1024.0):
        accelerator = Accelerator(cpu=True)
        # As it is set where float16 runs; it takes no complex weights on a CPU.
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        train(
            accelerator,
            watch,
            build=lambda: nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.GELU(), nn.Conv2d(4, 1, 1)),
            sinks=[sink],
            batches=1,
        )
        AcceleratorState._reset_state(True)
    plain, scaled = (record.module("0").stats["grad_norm"] for record in sink.records)
    assert plain == pytest.approx(scaled)


def test_a_loop_can_go_on_at_a_later_step(sink) -> None:
    train(Accelerator(cpu=True), watch, sinks=[sink], every=4, resume_at=101)
    assert [record.step for record in sink.records] == [104]


def test_only_the_main_process_records(sink, monkeypatch) -> None:
    monkeypatch.setattr(Accelerator, "is_main_process", False)
    train(Accelerator(cpu=True), watch, sinks=[sink], every=1)
    assert sink.records == []


def test_records_go_to_the_trackers_by_default(tmp_path: Path, alone: Path, read_events) -> None:
    import wandb

    accelerator = Accelerator(cpu=True, log_with=["tensorboard", "wandb"], project_dir=tmp_path)
    accelerator.init_trackers("run", init_kwargs={"wandb": {"mode": "offline", "dir": str(alone)}})
    train(accelerator, watch, problems=["W&B: a later r"], every=4)
    accelerator.log({"loss": 1.0}, step=6)
    accelerator.end_training()
    wandb.teardown()
    events = read_events(tmp_path / "run")
    assert [step for step, _ in events["rms/0/lifting"]] == [0, 4]
    [folder] = (alone / "wandb").glob("offline-run-*")
    rows = wandb_log.read_rows(folder)
    assert [row["loss"] for row in rows if "loss" in row] == [1.0]
    # Without a row of the loop between them, the later record is the one that is left.
    assert [row["checkpoint_step"] for row in rows if "checkpoint_step" in row] == [4]


@pytest.mark.parametrize(
    ("options", "message"),
    [({}, "has no TensorBoard or W&B tracker; give `sinks`"), ({"resume_at": -1}, "`resume_at` is -1")],
)
def test_what_cannot_be_used_is_an_option_error(options, message) -> None:
    with pytest.raises(OptionError, match=message):
        watch(Accelerator(cpu=True), nn.Linear(1, 1), **options)
