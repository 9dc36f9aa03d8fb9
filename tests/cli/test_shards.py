"""`capture --shard` and `merge`: captures of parts of a sweep, joined into one series."""

import json
from pathlib import Path

import pytest
import torch

from support.alike_documents import list_differences

CAPTURE = ("capture", "--input", "train.npz", "--output", "out", "--model", "cli_networks:Plain", "--quiet")
STEPS = (10, 20, 30, 40, 50)


@pytest.fixture
def sweep(folder: Path) -> Path:
    """Five checkpoints in `sweep`, whose names are not in the order of their steps."""
    import cli_networks

    (folder / "sweep").mkdir()
    for step in STEPS:
        torch.manual_seed(step)
        state = cli_networks.Plain().state_dict()
        torch.save({"state_dict": state, "global_step": step}, folder / "sweep" / f"{97 * step % 100}.ckpt")
    return folder


def list_reports(folder: Path) -> list[int]:
    return sorted(int(path.name.split("step")[1].split(".")[0]) for path in folder.glob("*.step*.json"))


def test_every_shard_takes_each_nth_step_and_clobbers_no_other(run, sweep):
    assert run(*CAPTURE, "--checkpoint", "sweep/*.ckpt", "--shard", "2/2").code == 0
    assert list_reports(sweep / "out") == [20, 40]
    assert run(*CAPTURE, "--checkpoint", "sweep/*.ckpt", "--shard", "1/2").code == 0
    assert list_reports(sweep / "out") == [*STEPS]
    logs = {path.name for path in (sweep / "out").glob("*.log")}
    assert logs == {"activation_report.shard1of2.log", "activation_report.shard2of2.log"}
    # The same as without shards, but for what says how it was made.
    assert run(*CAPTURE[:4], "whole", *CAPTURE[5:], "--checkpoint", "sweep/*.ckpt").code == 0
    for step in STEPS:
        name = f"activation_report.step{step}.json"
        one, other = (json.loads((sweep / part / name).read_text()) for part in ("out", "whole"))
        assert list(list_differences(one, other, ("command", "experiment"))) == []


def test_slurm_takes_the_task_of_the_array(run, sweep, monkeypatch):
    task = {"ID": "9", "MIN": "3", "COUNT": "3", "STEP": "3"}
    for name, value in task.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    assert run(*CAPTURE, "--checkpoint", "sweep/*.ckpt", "--shard", "slurm").code == 0
    assert list_reports(sweep / "out") == [30]
    monkeypatch.delenv("SLURM_ARRAY_TASK_COUNT")
    result = run(*CAPTURE, "--checkpoint", "sweep/*.ckpt", "--shard", "slurm")
    assert result.code == 2 and "SLURM_ARRAY_TASK_COUNT is not set" in result.err


def test_a_shard_without_a_checkpoint_has_nothing_to_do(run, sweep):
    result = run(*CAPTURE[:-1], "--checkpoint", "sweep/*.ckpt", "--shard", "8/8", "--json")
    assert result.code == 0 and result.document["reports"] == []
    assert "nothing to capture, of 5 checkpoints" in result.err
    assert not (sweep / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--shard", "0/2"), ("--shard '0/2'", "I/N")),
        (("--shard", "3/2"), ("--shard '3/2'", "I/N")),
        (("--shard", "half"), ("--shard 'half'", "slurm")),
        (("--shard", "1/2", "--sink", "json, tensorboard"), ("--sink tensorboard", "merge")),
        (("--shard", "1/2", "--diagnose"), ("--diagnose", "whole series")),
    ],
)
def test_what_needs_the_whole_series_is_refused(run, sweep, options, words):
    result = run(*CAPTURE, "--checkpoint", "sweep/*.ckpt", *options)
    assert result.code == 2 and result.err.count("\n") == 1
    assert all(word in result.err for word in words)
    assert not (sweep / "out").exists()


def test_one_checkpoint_has_no_shards(run, sweep):
    result = run(*CAPTURE, "--checkpoint", "sweep/30.ckpt", "--shard", "1/2")
    assert result.code == 2 and "--shard divides several checkpoints" in result.err


def capture_apart(run, *outputs: str) -> None:
    for number, output in enumerate(outputs, 1):
        options = (*CAPTURE[:4], output, *CAPTURE[5:], "--shard", f"{number}/{len(outputs)}")
        assert run(*options, "--checkpoint", "sweep/*.ckpt").code == 0


def test_merge_writes_every_sink_in_ascending_steps(run, sweep, read_events):
    capture_apart(run, "a", "b")
    result = run("merge", "b", "a", "--output", "all", "--sink", "tensorboard,history", "--json")
    assert result.code == 0, result.err
    assert result.document["schema"] == "fno-telemetry-merge/1"
    assert [each["step"] for each in result.document["reports"]] == [*STEPS]
    assert result.document["sinks"] == {"json": "ok", "tensorboard": "ok", "history": "ok"}
    assert list_reports(sweep / "all") == [*STEPS]
    history = (sweep / "all" / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["summary"]["checkpoint_step"] for line in history] == [*STEPS]
    curves = read_events(sweep / "all" / "tensorboard" / "all")
    assert [step for step, _ in curves["rms/conv"]] == [*STEPS]
    for step in STEPS:
        name = f"activation_report.step{step}.json"
        source = sweep / ("a" if step in STEPS[::2] else "b") / name
        assert json.loads((sweep / "all" / name).read_text()) == json.loads(source.read_text())


def test_merge_of_one_folder_leaves_its_reports_as_they_are(run, sweep):
    capture_apart(run, "out", "out")
    before = {path: path.stat().st_mtime_ns for path in (sweep / "out").glob("*.json")}
    result = run("merge", "out", "--sink", "history", "--json")
    assert result.code == 0 and result.document["sinks"] == {"history": "ok"}
    assert {path: path.stat().st_mtime_ns for path in (sweep / "out").glob("*.json")} == before
    assert run("merge", "out").code == 0


def test_merge_refuses_what_is_no_series(run, sweep):
    capture_apart(run, "a", "b")
    assert run(*CAPTURE[:4], "c", *CAPTURE[5:], "--checkpoint", "sweep/*.ckpt").code == 0
    result = run("merge", "a", "c", "--output", "all")
    assert result.code == 2 and "of two runs" in result.err
    result = run("merge", "a", "b")
    assert result.code == 2 and "--output DIR is required" in result.err
    (sweep / "d").mkdir()
    report = json.loads((sweep / "b" / "activation_report.step20.json").read_text())
    report["provenance"]["input"]["digest"] = "0" * 64
    (sweep / "d" / "activation_report.step20.json").write_text(json.dumps(report))
    result = run("merge", "a", "d", "--output", "all")
    assert result.code == 2 and "different input" in result.err
    assert not (sweep / "all").exists()


def test_merge_replaces_reports_only_with_force(run, sweep):
    capture_apart(run, "a", "b")
    assert run("merge", "a", "b", "--output", "all").code == 0
    result = run("merge", "a", "b", "--output", "all")
    assert result.code == 2 and "--force" in result.err
    assert run("merge", "a", "b", "--output", "all", "--force").code == 0


def test_a_shard_that_is_captured_again_says_that_its_reports_exist(run, sweep):
    capture_apart(run, "a", "b")
    result = run(*CAPTURE[:4], "a", *CAPTURE[5:], "--checkpoint", "sweep/*.ckpt", "--shard", "1/2")
    assert result.code == 2 and "--force" in result.err
    assert list_reports(sweep / "a") == [10, 30, 50]
