"""In a sweep, whose agent sets the id and the project of every run, our own run is still one of its own."""

from pathlib import Path

import pytest

from fno_telemetry.sinks.contract import RunContext
from fno_telemetry.sinks.wandb.sink import WandbRun
from support import wandb_log as log
from support.sink_runs import write_records

# W&B does not close the file with a sweep's parameters.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed file.*parameters:ResourceWarning"),
    pytest.mark.filterwarnings(
        "ignore:Exception ignored.*parameters:pytest.PytestUnraisableExceptionWarning"
    ),
]


@pytest.fixture
def sweep(alone: Path, monkeypatch: pytest.MonkeyPatch):
    """What `wandb agent` tells a training; the function starts the run of the training."""
    import wandb

    parameters = alone.parent / "parameters.yaml"
    parameters.write_text("wandb_version: 1\nlr:\n  desc: null\n  value: 0.1\n")
    given = {"SWEEP_ID": "sweep1", "RUN_ID": "train1", "PROJECT": "training", "NAME": "theirs"}
    for name, value in (given | {"SWEEP_PARAM_PATH": str(parameters)}).items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    settings = wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True)
    return lambda: wandb.init(mode="offline", dir=alone.parent, settings=settings)


@pytest.mark.parametrize("when", ["during", "after"])
def test_our_own_run_has_an_id_a_project_and_a_name_of_its_own(alone, record, sweep, when):
    import wandb

    training = sweep()
    training.log({"loss": 1.0})
    if when == "after":
        training.finish()
    lines = write_records(WandbRun(mode="offline"), RunContext(alone, experiment="demo"), record)
    assert lines[0] == "W&B is offline, as requested."
    if when == "during":
        training.log({"loss": 0.5})
        training.finish()
    # The next run of the training is the sweep's again.
    again = sweep()
    assert (again.id, again.sweep_id, again.config["lr"]) == ("train1", "sweep1", 0.1)
    again.finish()
    wandb.teardown()
    [folder] = (alone / "wandb").iterdir()
    [ours] = [entry.run for entry in log.read_log(folder) if entry.HasField("run")]
    assert ours.run_id.startswith("demo-")
    assert (ours.project, ours.display_name, ours.sweep_id) == ("fno-telemetry", "demo", "")
    assert "lr" not in log.read_config(folder)
    [theirs, _] = sorted((alone.parent / "wandb").glob("offline-run-*"))
    assert [row["loss"] for row in log.read_rows(theirs)] == ([1, 0.5] if when == "during" else [1])


def test_online_the_server_is_told_of_our_own_run(server, alone, record, sweep):
    training = sweep()
    lines = write_records(WandbRun(), RunContext(alone, experiment="demo"), record)
    training.finish()
    [name] = server.runs
    assert name.startswith("demo-")
    assert lines[0] == f"W&B run: {server.url}/stand-in/fno-telemetry/runs/{name}"
    assert "sweep" not in server.runs[name].fields
