"""`view --wandb`: where the runs of a capture are, in lines to open and to run."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fno_telemetry import plugins
from support import wandb_stand_in, wandb_surroundings

alone = wandb_surroundings.alone


@pytest.fixture
def server(alone, monkeypatch) -> Iterator[Any]:
    with wandb_stand_in.StandIn() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", wandb_stand_in.API_KEY)
        yield server


@pytest.fixture
def capture(run, folder, alone, tiny):
    """Capture a checkpoint into W&B, in a folder called `run`; return the lines at the end about W&B."""
    network = plugins.load("architectures", "fno").build(
        hidden_channels=4, modes=3, fno_blocks=1, cnn_blocks=1, C=1
    )
    torch.save({"state_dict": network.state_dict(), "global_step": 1000}, "model.ckpt")

    def call(*options: str) -> list[str]:
        line = ("--input", "train.npz", "--checkpoint", "model.ckpt", "--set", "input_transform=none")
        result = run("capture", *line, "--output", "run", "--force", "--sink", "wandb", *options)
        assert result.code == 0, result.err
        _, shown = result.err.split("look at it:\n")
        lines = [line.removeprefix("  ") for line in shown.splitlines()]
        return [line for line in lines if line.startswith(("W&B run", "W&B project", "wandb", "to upload"))]

    return call


def test_an_offline_run_is_shown_with_the_commands_that_the_capture_named(run, capture):
    said = capture("--wandb-mode", "offline")
    [folder] = Path("run/wandb").iterdir()
    expected = [f"wandb leet {folder}", f"to upload it: wandb sync {folder}"]
    assert said == expected
    for path in ("run", "run/activation_report.json", "run/wandb"):
        result = run("view", "--wandb", path)
        assert (result.code, result.out.splitlines(), result.err) == (0, expected, "")
    shown = wandb_surroundings.run_wandb(Path.cwd(), expected[0].replace("leet", "leet inspect --json"))
    assert '"checkpoint_step":1000' in shown


def test_an_online_run_is_shown_with_its_address(run, capture, server):
    said = capture()
    project = f"{server.url}/stand-in/fno-telemetry"
    [name] = server.runs
    assert said == [f"W&B run: {project}/runs/{name}", f"W&B project: {project}"]
    assert run("view", "--wandb", "run").out.splitlines() == said


@pytest.mark.parametrize("columns", ["20", "40"])
def test_a_line_to_copy_stays_whole_in_a_narrow_terminal(run, capture, monkeypatch, columns):
    said = capture("--wandb-mode", "offline")
    monkeypatch.setenv("COLUMNS", columns)
    assert run("view", "--wandb", "run").out.splitlines() == said


def test_json_has_the_same_facts(run, capture):
    said = capture("--wandb-mode", "offline", "--experiment", "mine", "--wandb-project", "p")
    [folder] = Path("run/wandb").iterdir()
    document = run("view", "--wandb", "--json", "run").document
    [shown] = document.pop("runs")
    assert document == {"schema": "fno-telemetry-wandb/1", "look": said}
    known = {
        "folder": str(folder),
        "mode": "offline",
        "experiment": "mine",
        "project": "p",
        "synced": False,
    }
    assert known.items() <= shown.items()
    assert (shown["url"], shown["problem"]) == (None, None)


def test_the_runs_of_several_captures_are_listed_by_experiment(run, capture):
    for name in ("a", "b"):
        capture("--wandb-mode", "offline", "--experiment", name)
        shutil.move("run", f"runs/{name}")
    Path("runs/empty").mkdir()
    [one], [two] = (list(Path(f"runs/{name}/wandb").iterdir()) for name in ("a", "b"))
    expected = [
        "a, in runs/a:",
        f"  wandb leet {one}",
        f"  to upload it: wandb sync {one}",
        "b, in runs/b:",
        f"  wandb leet {two}",
        f"  to upload it: wandb sync {two}",
        "to upload all of them into the project fno-telemetry, which compares them: "
        "wandb sync runs/*/wandb/offline-run-*",
    ]
    result = run("view", "--wandb", "runs")
    assert (result.code, result.out.splitlines(), result.err) == (0, expected, "")
    document = run("view", "--wandb", "--json", "runs").document
    found = [(each["experiment"], each["folder"]) for each in document["runs"]]
    assert found == [("a", str(one)), ("b", str(two))]
    assert document["look"] == expected


def test_a_saved_workspace_is_printed_now_and_later(run, capture, server):
    said = capture()
    result = run("view", "--wandb", "--save-workspace", "run")
    [name] = server.views
    address = f"{server.url}/stand-in/fno-telemetry?nw={name.removeprefix('nw-').removesuffix('-v')}"
    assert result.out.splitlines() == [*said, f"W&B workspace: {address}"]
    assert (result.code, result.err) == (0, "")
    assert run("view", "--wandb", "run").out == result.out
    assert run("view", "--wandb", "run", "--json").document["runs"][0]["workspace"] == address


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (("--wandb", "run"), "run: no W&B run in this folder; `fno-telemetry capture --sink wandb"),
        (("--wandb", "nowhere"), "nowhere: no such file"),
        (("--wandb", "train.npz"), "train.npz: cannot be read"),
        (("--wandb", "--tensorboard", "run"), "give --wandb or --tensorboard, not both"),
        (("--save-workspace", "run"), "--save-workspace is for --wandb; add that, or leave it out"),
        (("--wandb", "--port", "1", "run"), "--port 1 is for --tensorboard"),
    ],
)
def test_what_cannot_be_shown_is_one_line(run, folder, line, expected):
    Path("run").mkdir()
    result = run("view", *line)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"fno-telemetry: {expected}")
    assert result.err.count("\n") == 1


def test_a_workspace_of_offline_runs_alone_is_refused(run, capture):
    capture("--wandb-mode", "offline")
    result = run("view", "--wandb", "--save-workspace", "run")
    assert (result.code, result.out) == (2, "")
    assert "needs an online run, and the runs here are offline" in result.err


def test_without_wandb_workspaces_the_pip_line_is_named(run, capture, server, monkeypatch):
    said = capture()
    for name in [name for name in sys.modules if name.partition(".")[0] == "wandb_workspaces"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    result = run("view", "--wandb", "--save-workspace", "run")
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "fno-telemetry: A W&B workspace needs wandb-workspaces: pip install 'fno-telemetry[workspaces]'.\n"
    )
    assert run("view", "--wandb", "run").out.splitlines() == said


def test_without_wandb_the_runs_are_shown_and_the_pip_line_is_named(run, capture, monkeypatch):
    said = capture("--wandb-mode", "offline")
    monkeypatch.setitem(sys.modules, "wandb", None)
    result = run("view", "--wandb", "run")
    assert (result.code, result.out.splitlines()) == (0, said)
    assert result.err == "the command wandb is not installed: pip install 'fno-telemetry[wandb]'\n"
    assert run("view", "--wandb", "-q", "run").err == ""


def test_it_imports_neither_wandb_nor_torch(capture):
    capture("--wandb-mode", "offline")
    program = (
        "import sys\nfrom fno_telemetry_cli.app import main\n"
        "try: main()\nfinally: assert not {'torch', 'wandb'} & sys.modules.keys()"
    )
    line = [sys.executable, "-c", program, "view", "--wandb", "run"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
