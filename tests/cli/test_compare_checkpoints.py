"""`compare` of checkpoints that are captured for it, and of reports that are replayed into dashboards."""

import os
from pathlib import Path

import pytest
import torch

import fno_telemetry as ft
from fno_telemetry import plugins
from support import wandb_log as log
from support import wandb_surroundings

alone = wandb_surroundings.alone


def save(path: str, seed: int, **more: int) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        arguments = {"hidden_channels": 4, "modes": 3, "C": 1, "fno_blocks": 1, "cnn_blocks": 1}
        network = plugins.load("architectures", "fno").build(**arguments)
    torch.save({"state_dict": network.state_dict(), **more}, path)
    return path


@pytest.fixture
def two(folder) -> tuple[str, str]:
    return save("a/model.pt", 0), save("b/model.pt", 1)


def test_checkpoints_are_captured_on_the_same_samples(run, two):
    result = run("compare", *two, "--input", "train.npz", "--json")
    assert result.code == 0
    assert result.document["first_diverging"] == "lifter.conv1"
    for name, path in zip("ab", two, strict=True):
        line = ("capture", "--input", "train.npz", "--checkpoint", path, "--batch-size", 2)
        assert run(*line, "--output", name).code == 0
    reports = run("compare", "a/activation_report.json", "b/activation_report.json", "--json").document
    assert [m["distance"] for m in result.document["modules"]] == [m["distance"] for m in reports["modules"]]
    assert not Path("activation_report.json").exists()


def test_a_checkpoint_is_compared_with_a_report_of_the_same_samples(run, two):
    assert run("capture", "--input", "train.npz", "--checkpoint", two[0], "--output", "out").code == 0
    same = run("compare", "out", two[0], "--input", "train.npz")
    assert (same.code, same.out.strip()) == (0, "the same within the thresholds")
    other = run("compare", "out", two[0], "--input", "train.npz", "--max-samples", 2)
    assert (other.code, other.err.count("\n")) == (2, 1)
    assert "--allow-different-input" in other.err


def test_a_checkpoint_may_be_given_twice(run, two):
    result = run("compare", two[0], two[0], "--input", "train.npz")
    assert (result.code, result.out.strip()) == (0, "the same within the thresholds")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("a/model.pt", "b/model.pt"), ("a/model.pt", "--input FILE")),
        (("a/model.pt", "none.pt", "--input", "train.npz"), ("none.pt", "no such file")),
        (("a/model.pt", "--input", "train.npz"), ("a/model.pt", "at least two")),
        (("out", "out", "--input", "train.npz"), ("--input", "only reports")),
        (("out", "out", "--architecture", "fno"), ("--architecture", "only reports")),
        (("out", "out", "--trust-checkpoint"), ("--trust-checkpoint", "only reports")),
        (("out", "out", "--sink", "tensorboard"), ("--output DIR", "required")),
        (("out", "out", "--output", "cmp"), ("--output", "--sink")),
        (("out", "out", "--output", "cmp", "--sink", "json"), ("--sink json", "there already")),
        (("out", "out", "--output", "cmp", "--sink", "tensorbord"), ("tensorbord", "Known")),
        (
            ("out", "out", "--output", "train.npz", "--sink", "tensorboard"),
            ("train.npz", "cannot be written"),
        ),
        (("out", "out", "--wandb-mode", "offline"), ("--wandb-mode", "--sink wandb")),
        (("a/model.pt", "b/model.pt", "--input", "train.npz", "--device", "warp"), ("--device 'warp'",)),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(run, two, captured, options, words):
    before = sorted(Path().rglob("*"))
    result = run("compare", *options)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert all(word in result.err for word in words)
    assert sorted(Path().rglob("*")) == before


def test_reports_are_replayed_into_a_run_for_each_folder(run, folder, alone, read_events):
    os.chdir(folder)
    for name, seed in (("before", 0), ("after", 1)):
        for step in (1000, 20):
            save(f"{name}-ck/step={step}.ckpt", seed + step, global_step=step)
        line = ("capture", "--input", "train.npz", "--checkpoint", f"{name}-ck/*.ckpt", "--output", name)
        assert run(*line).code == 0
    line = ("compare", "before", "after", "--group", "--sink", "tensorboard,wandb", "--output", "cmp")
    result = run(*line, "--json")
    assert result.code == 0
    assert result.document["sinks"] == {"tensorboard": "ok", "wandb": "ok"}
    import wandb

    wandb.teardown()
    runs = {log.read_config(path)["architecture"] for path in offline()}
    assert runs == {"fno"}
    for name in ("before", "after"):
        records = [ft.load_report(f"{name}/activation_report.step{step}.json") for step in (20, 1000)]
        values = [record.module("lifter").stats["rms"] for record in records]
        points = read_events(Path(f"cmp/tensorboard/{name}"))["rms/lifter"]
        assert points == [(20, pytest.approx(values[0])), (1000, pytest.approx(values[1]))]
        [path] = [path for path in offline() if path.name.split("-")[3] == name]
        rows = log.read_rows(path)
        assert [row["checkpoint_step"] for row in rows] == [20, 1000]
        assert [row["rms/lifter"] for row in rows] == values


def offline() -> list[Path]:
    return sorted(Path("cmp/wandb").glob("offline-run-*"))


def test_a_sink_that_cannot_be_opened_is_refused_in_one_line(run, captured):
    Path("cmp").mkdir()
    Path("cmp/tensorboard").write_text("in the way")
    result = run("compare", "out", "out", "--sink", "tensorboard", "--output", "cmp")
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert "cmp/tensorboard" in result.err
