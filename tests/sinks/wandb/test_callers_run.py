"""A run that the caller owns: every row of theirs stays, and it goes on after the sink is closed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fno_telemetry import keys, report
from fno_telemetry.errors import OptionError
from fno_telemetry.records import FrozenMapping
from fno_telemetry.sinks.contract import RunContext
from fno_telemetry.sinks.wandb.rows import row
from fno_telemetry.sinks.wandb.sink import WandbRun
from support import wandb_log as log
from support import wandb_stand_in


@pytest.fixture
def mine(alone) -> Any:
    import wandb

    settings = wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True)
    return wandb.init(mode="offline", dir=alone, config={"lr": 0.1}, settings=settings)


def finished(run) -> Path:
    """Finish the run and return its folder, once its log is whole."""
    import wandb

    folder = Path(run.sync_dir)
    run.finish()
    wandb.teardown()
    return folder


@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_a_loop_that_logs_with_step_keeps_every_row(mine, record, examples, when):
    sink = WandbRun(mine)
    plan = dict.fromkeys(("before", "between", "after"), lambda _: None)
    plan[when] = lambda step: sink.write(examples.at_step(record, step)) if step % 4 == 0 else None
    for step in range(12):
        plan["before"](step)
        mine.log({"loss": 1 / (step + 1)}, step=step)
        plan["between"](step)
        mine.log({"accuracy": step / 11}, step=step)
        plan["after"](step)
    assert sink.close(ok=True) == []
    mine.log({"loss": 0.0}, step=12)
    rows = log.read_rows(finished(mine))
    theirs = [{key: each.get(key) for key in ("_step", "loss", "accuracy")} for each in rows]
    expected = [{"_step": i, "loss": 1 / (i + 1), "accuracy": i / 11} for i in range(12)]
    assert [*expected, {"_step": 12, "loss": 0.0, "accuracy": None}] == theirs
    ours = [each for each in rows if "checkpoint_step" in each]
    # What comes before the step's own row joins the one before it, whose step then is open.
    behind = [0, 3, 7] if when == "before" else [0, 4, 8]
    assert [(*pair,) for pair in zip(behind, (0, 4, 8), strict=True)] == [
        (each["_step"], each["checkpoint_step"]) for each in ours
    ]
    assert all(row(record).scalars.keys() <= each.keys() for each in ours)


def test_a_loop_that_logs_without_step_keeps_every_row(mine, record, examples):
    sink = WandbRun(mine)
    for step in range(6):
        if step % 2 == 0:
            sink.write(examples.at_step(record, step))
        mine.log({"loss": float(step)})
    sink.close(ok=True)
    rows = log.read_rows(finished(mine))
    assert [(i, float(i)) for i in range(6)] == [(each["_step"], each["loss"]) for each in rows]
    assert [each["checkpoint_step"] for each in rows if "checkpoint_step" in each] == [0, 2, 4]


def test_steps_that_are_epochs_lose_no_row_and_the_sink_says_which_record_it_kept(mine, record, examples):
    sink = WandbRun(mine)
    for epoch in range(3):
        for batch in range(4):
            sink.write(examples.at_step(record, 4 * epoch + batch))
        mine.log({"loss": 1.0}, step=epoch)
    [line] = sink.close(ok=True)
    assert "records were replaced by later ones" in line
    assert "commit=True" in line
    rows = log.read_rows(finished(mine))
    assert [each["_step"] for each in rows if "loss" in each] == [0, 1, 2]


def test_a_validation_shares_the_row_of_any_training_step_and_has_a_step_of_its_own(mine, record, examples):
    sink = WandbRun(mine)

    def at(step, stage):
        return replace(examples.at_step(record, step), training=FrozenMapping({"stage": stage}))

    mine.log({"val/mine": 0.5}, step=0)
    sink.write(at(10, "train"))
    sink.write(at(10, "val"))
    assert list(sink.problems) == []
    mine.log({"val/mine": 0.25}, step=1)
    sink.write(at(20, "val"))
    sink.write(at(21, "train"))
    assert list(sink.problems) == []
    sink.write(at(22, "val"))
    [problem] = sink.problems
    assert problem.startswith("W&B: a later record replaces an earlier one, because the run logged no row ")
    sink.close(ok=True)
    run = finished(mine)
    [first, second] = [each for each in log.read_rows(run) if "val/mine" in each]
    assert {"rms/lifter", "val/rms/lifter"} <= first.keys()
    assert (first["checkpoint_step"], second["checkpoint_step"]) == (10, 21)
    assert (first["val/checkpoint_step"], second["val/checkpoint_step"]) == (10, 22)
    # The caller's own metrics of a validation are not drawn over that step.
    assert "val/*" not in log.read_metrics(run)
    assert log.read_metrics(run)["val/rms/*"] == ("val/checkpoint_step", True)
    assert log.read_summary(run)["val/mine"] == 0.25


def test_with_commit_every_record_has_a_row_of_its_own(mine, record, examples):
    sink = WandbRun(mine, commit=True)
    mine.log({"loss": 0.5})
    for step in (10, 20, 30):
        sink.write(examples.at_step(record, step))
    assert sink.close(ok=True) == []
    rows = log.read_rows(finished(mine))
    assert [each.get("checkpoint_step") for each in rows] == [None, 10, 20, 30]
    assert "loss" in rows[0]


def test_a_point_of_a_callers_run_is_not_written_twice(mine, record, examples):
    sink = WandbRun(mine, commit=True)
    without = examples.at_step(record, None)
    # Over W&B's own step, where two of them are two points.
    sink.write(without)
    sink.write(without)
    sink.write(record)
    with pytest.raises(
        OptionError, match=r"^W&B: a record at step 1000 was already written; give `ft.capture`"
    ):
        sink.write(record)
    with pytest.raises(OptionError, match="this record has no step, and the one before it was of step 1000"):
        sink.write(without)
    sink.close(ok=True)
    run = finished(mine)
    assert [each.get("checkpoint_step") for each in log.read_rows(run)] == [None, None, 1000]
    # The first record with a step makes the step the axis.
    assert log.read_metrics(run)["rms/*"] == ("checkpoint_step", True)


def test_the_run_goes_on_and_keeps_what_is_its_own(mine, record, examples):
    mine.summary["n_parameters"] = "mine"
    sink = WandbRun(mine)
    sink.open(RunContext(Path("is-not-used"), experiment="demo"))
    sink.write(record)
    mine.log({"loss": 1.0})
    sink.write(examples.at_step(record, 2000))
    sink.flush()
    sink.close(ok=False)
    assert sink.close(ok=False) == []
    mine.log({"loss": 0.5})
    folder = finished(mine)
    assert log.exit_code(folder) == 0
    assert log.read_summary(folder)["n_parameters"] == "mine"
    configs = [entry.config for entry in log.read_log(folder) if entry.HasField("config")]
    assert [item.key for config in configs for item in config.update] == ["fno_telemetry"]
    assert "lr" in log.read_config(folder)
    artifacts = [entry.artifact for entry in log.read_log(folder) if entry.HasField("artifact")]
    artifacts = [artifact for artifact in artifacts if artifact.type == "activation-report"]
    # Only the last report: a training would leave thousands.
    [[entry]] = [artifact.manifest.contents for artifact in artifacts]
    assert report.load_report(entry.local_path).step == 2000
    assert not Path("is-not-used").exists()


def test_a_run_that_ended_first_takes_nothing_else_with_it(mine, record):
    sink = WandbRun(mine)
    sink.write(record)
    finished(mine)
    report, layers = sink.close(ok=True)
    assert report.startswith("W&B lacks the report of this run: ")
    assert layers.startswith("W&B lacks the table of layers of this run: ")


def test_a_disabled_run_takes_nothing(alone, record):
    import wandb

    mine = wandb.init(mode="disabled")
    sink = WandbRun(mine)
    for _ in range(2):
        sink.write(record)
    sink.flush()
    assert sink.close(ok=True) == []
    mine.finish()


def test_an_online_run_is_shown_by_its_address(alone, record, monkeypatch):
    import wandb

    with wandb_stand_in.StandIn() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", wandb_stand_in.API_KEY)
        mine = wandb.init(
            project="p", id="mine", dir=alone, settings=wandb.Settings(silent=True, console="off")
        )
        for step in range(3):
            mine.log({"loss": float(step)}, step=step)
            if step == 1:
                sink = WandbRun(mine)
                sink.write(record)
        assert sink.close(ok=True) == [f"W&B run: {server.url}/stand-in/p/runs/mine"]
        mine.finish()
    rows = server.runs["mine"].record_rows
    assert [each["_step"] for each in rows] == [0, 1, 2]
    assert [each.get("checkpoint_step") for each in rows] == [None, 1000, None]
    assert [each.aliases for each in server.reports] == [["latest", "step-1000"]]


def test_what_is_no_run_is_refused():
    with pytest.raises(OptionError, match=r"`run` is a str: .* for a run of its own give `project`"):
        WandbRun("my-project")


def test_records_in_a_callers_run_can_be_read_back(mine, record, examples, tmp_path):
    sink = WandbRun(mine, commit=True, detail="full")
    mine.log({"loss": 1.0}, commit=False)
    sink.write(record)
    later = examples.at_step(examples.with_stats(record, "lifter", rms=0.5), 2000)
    sink.write(later)
    sink.close(ok=True)
    finished(mine)
    # The folder of a run is of no account: the caller's run has its own.
    found = sink.read_back(tmp_path / "nowhere")
    assert found == {1000: dict(keys.numbers(record)), 2000: dict(keys.numbers(later))}
