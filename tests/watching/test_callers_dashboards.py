"""A watched loop that fills a writer and a run of its own: all of its rows stay, and ours are among them."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.tensorboard import SummaryWriter

import fno_telemetry as ft
from support import tensorboard_serving, wandb_surroundings
from support import wandb_log as log

alone = wandb_surroundings.alone

STEPS = 10


def train(
    log_step: Callable[[int, float], None], sinks: list[ft.Sink] | None, **options: Any
) -> ft.Watch | None:
    """Run a loop that logs each step; watch it where there are sinks."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    watch = None if sinks is None else ft.watch(network, sinks, every=3, optimizer=optimizer, **options)
    for step in range(STEPS):
        output = network(torch.full((2, 3), 1.0 + step))
        loss = output.square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        log_step(step, loss.item())
        if watch is not None:
            watch.step(step, loss=loss, output=output, target=torch.ones(2, 1))
            if options.get("diagnose") and step % 3 == 0:
                wait_until_judged(watch)
    if watch is not None:
        watch.close()
    return watch


def wait_until_judged(watch: ft.Watch) -> None:
    """Wait as long as a step of a real training takes."""
    delivery = watch._delivery
    for _ in range(3000):
        if delivery._judged:
            return
        threading.Event().wait(0.01)
    raise AssertionError("it is not judged")


def losses() -> list[float]:
    found: list[float] = []
    train(lambda step, loss: found.append(loss), None)
    return found


@pytest.mark.parametrize("diagnose", [False, True])
def test_every_value_of_a_callers_writer_stands_at_its_step(tmp_path, diagnose):
    with SummaryWriter(str(tmp_path)) as writer:
        train(
            lambda step, loss: writer.add_scalar("loss/train", loss, step),
            [ft.TensorBoard(writer)],
            diagnose=diagnose,
        )
        writer.add_scalar("loss/train", 0.0, STEPS)
    events = EventAccumulator(str(tmp_path)).Reload()

    def curve(tag: str) -> dict[int, float]:
        points = [(each.step, each.value) for each in events.Scalars(tag)]
        assert len(dict(points)) == len(points)
        return dict(points)

    expected = {step: pytest.approx(loss, rel=1e-6) for step, loss in enumerate(losses())}
    assert curve("loss/train") == expected | {STEPS: 0.0}
    assert curve("captured_loss") == {step: expected[step] for step in (0, 3, 6, 9)}
    for tag in ("relative_l2/accuracy", "output_to_target_rms/accuracy", "grad_norm/0", "update_to_weight/2"):
        assert curve(tag).keys() == {0, 3, 6, 9}
    assert ("findings/error" in events.Tags()["scalars"]) == diagnose


def test_the_server_shows_every_value_of_both(tmp_path):
    with SummaryWriter(str(tmp_path / "mine")) as writer:
        train(
            lambda step, loss: writer.add_scalar("loss/train", loss, step),
            [ft.TensorBoard(writer)],
            diagnose=True,
        )

    def steps(get: tensorboard_serving.Get, tag: str) -> list[int]:
        return [step for _, step, _ in get("plugin/scalars/scalars", run="mine", tag=tag)]

    with tensorboard_serving.serving(tmp_path, lambda get: len(steps(get, "captured_loss")) == 4) as get:
        assert steps(get, "loss/train") == list(range(STEPS))
        assert steps(get, "captured_loss") == steps(get, "grad_norm/0") == [0, 3, 6, 9]


@pytest.fixture
def start(alone: Path) -> Callable[[], Any]:
    import wandb

    settings = wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True)
    return lambda: wandb.init(mode="offline", dir=alone, reinit="create_new", settings=settings)


def rows_of(run: Any) -> list[dict[str, Any]]:
    import wandb

    folder = Path(run.sync_dir)
    run.finish()
    wandb.teardown()
    return log.read_rows(folder)


HABITS: dict[str, Callable[[Any, int, float], None]] = {
    "without a step": lambda run, step, loss: run.log({"loss": loss, "i": step}),
    "with the step": lambda run, step, loss: run.log({"loss": loss, "i": step}, step=step),
    "with the step from 1": lambda run, step, loss: run.log({"loss": loss, "i": step}, step=step + 1),
    "with the step in two parts": lambda run, step, loss: (
        run.log({"loss": loss}, step=step),
        run.log({"i": step}, step=step),
    ),
    "in two parts": lambda run, step, loss: (run.log({"loss": loss}, commit=False), run.log({"i": step})),
    "committed with the step": lambda run, step, loss: run.log(
        {"loss": loss, "i": step}, step=step, commit=True
    ),
    "with a step of its own": lambda run, step, loss: run.log({"loss": loss, "i": step, "global_step": step}),
    "every second step": lambda run, step, loss: step % 2 or run.log({"loss": loss, "i": step}, step=step),
    "uncommitted with the step": lambda run, step, loss: run.log(
        {"loss": loss, "i": step}, step=step, commit=False
    ),
}


@pytest.mark.parametrize("diagnose", [False, True], ids=["", "diagnosed"])
@pytest.mark.parametrize("habit", HABITS)
def test_a_callers_run_has_every_row_of_the_loop_and_every_record(start, habit, diagnose):
    logged = HABITS[habit]
    without = start()
    train(lambda step, loss: logged(without, step, loss), None)
    plain = rows_of(without)
    run = start()
    watch = train(lambda step, loss: logged(run, step, loss), [ft.WandbRun(run)], diagnose=diagnose)
    assert watch.problems == []
    run.log({"end": 1}, **({"step": 100} if "with the step" in habit else {}))
    found = rows_of(run)
    names = {"_step", "loss", "i", "global_step"}
    theirs = [{key: value for key, value in row.items() if key in names} for row in found if "i" in row]
    assert theirs == plain
    ours = {row["checkpoint_step"]: row for row in found if "captured_loss" in row}
    assert list(ours) == [0, 3, 6, 9]
    for step, row in ours.items():
        assert row["captured_loss"] == pytest.approx(losses()[step], rel=1e-6)
        assert {"relative_l2/accuracy", "grad_norm/0", "update_to_weight/0"} <= row.keys()
        assert ("findings/error" in row) == diagnose


@pytest.mark.parametrize("diagnose", [False, True], ids=["", "diagnosed"])
def test_where_a_run_has_fewer_rows_than_records_that_is_said_at_once_and_the_table_has_all(start, diagnose):
    def log_epoch(step: int, loss: float) -> None:
        # As neuraloperator's trainer does, with epochs of five steps.
        if step % 5 == 4:
            run.log({"train_err": loss, "i": step}, step=step // 5 + 1, commit=False)

    run = start()
    watch = train(log_epoch, [ft.WandbRun(run)], diagnose=diagnose)
    [problem] = watch.problems
    assert problem.startswith("W&B: a later record replaces an earlier one, because the run logged no row ")
    folder = Path(run.sync_dir)
    found = rows_of(run)
    assert [(row["_step"], row["i"]) for row in found if "i" in row] == [(1, 4), (2, 9)]
    table = log.read_tables(folder)["layers/table"]
    step = table["columns"].index("step")
    assert sorted({row[step] for row in table["data"]}) == [0, 3, 6, 9]


def test_a_metric_of_the_callers_for_the_accuracy_is_left_alone(start):
    run = start()
    train(lambda step, loss: run.log({"relative_l2/val": loss}, step=step), [ft.WandbRun(run)])
    folder = Path(run.sync_dir)
    assert len([row for row in rows_of(run) if "relative_l2/val" in row]) == STEPS
    metrics = log.read_metrics(folder)
    assert metrics["relative_l2/accuracy"] == ("checkpoint_step", False)
    assert "relative_l2/*" not in metrics
    assert log.read_summary(folder)["relative_l2/val"] == pytest.approx(losses()[-1], rel=1e-6)
