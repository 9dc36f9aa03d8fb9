"""Several checkpoints in one command: names, order, what goes wrong, and capturing a step again."""

import json
from pathlib import Path

import pytest
import torch

import fno_telemetry as ft
from fno_telemetry import plugins, session, sources
from fno_telemetry.mapping import detection
from support.both_ways import assert_alike
from support.cli_networks import Staged

CAPTURE = ("capture", "--input", "train.npz", "--output", "out")


def network(seed: int = 0) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        arguments = {"hidden_channels": 4, "modes": 3, "C": 1, "fno_blocks": 1, "cnn_blocks": 1}
        return plugins.load("architectures", "fno").build(**arguments)


def staged(stage: int, seed: int) -> Staged:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = Staged()
    made.stage.fill_(stage)
    return made


def save(path: str, seed: int = 0, **more: int) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": network(seed).state_dict(), **more}, path)
    return path


@pytest.fixture
def checkpoints(folder) -> Path:
    """Steps whose order is neither that of the names nor that of the digits."""
    for step in (200, 30, 1000):
        save(f"ck/{'z' if step == 30 else 'a'}-{step}.ckpt", step, global_step=step)
    return folder


def steps(read_events, folder: str) -> list[int]:
    return [step for step, _ in read_events(Path(folder))["rms/lifter"]]


def test_a_glob_gives_a_report_for_each_checkpoint_and_sinks_get_ascending_steps(
    run, checkpoints, read_events
):
    result = run(*CAPTURE, "--checkpoint", "ck/*.ckpt", "--sink", "tensorboard", "--json")
    assert result.code == 0
    reports = result.document["reports"]
    assert [report["step"] for report in reports] == [30, 200, 1000]
    assert [report["path"] for report in reports] == [
        f"out/activation_report.step{step}.json" for step in (30, 200, 1000)
    ]
    for report in reports:
        record = ft.load_report(report["path"])
        assert record.summary["step_kind"] == "step"
        alone = ft.capture(network(record.step), sources.read_samples("train.npz").values)
        assert record.module("lifter").stats["rms"] == pytest.approx(alone.module("lifter").stats["rms"])
    assert steps(read_events, "out/tensorboard/out") == [30, 200, 1000]
    assert {path.name for path in Path("out").iterdir() if path.is_file()} == {
        *(Path(report["path"]).name for report in reports),
        "activation_report.log",
    }


@pytest.fixture
def plans(monkeypatch) -> list[torch.nn.Module]:
    """The models that a measurement plan was made of."""
    made = []

    def detect(model, *arguments):
        made.append(model)
        return detection.detect(model, *arguments)

    monkeypatch.setattr(session, "detect", detect)
    return made


def test_all_checkpoints_are_measured_by_one_plan(run, checkpoints, plans):
    assert run(*CAPTURE, "--checkpoint", "ck/*.ckpt").code == 0
    assert len(plans) == 1
    for step in (30, 200, 1000):
        record = ft.load_report(f"out/activation_report.step{step}.json")
        assert_alike(record, ft.capture(network(step), sources.read_samples("train.npz").values))


@pytest.mark.parametrize(
    ("stages", "made"), [((0, 0, 0), 1), ((0, 1, 1), 2), ((0, 2, 2), 2), ((0, 1, 0), 3), ((0, 1, 2), 3)]
)
def test_a_checkpoint_that_runs_otherwise_is_measured_by_a_plan_of_its_own(run, folder, plans, stages, made):
    networks = [staged(stage, seed) for seed, stage in enumerate(stages)]
    for step, one in enumerate(networks):
        torch.save({"state_dict": one.state_dict(), "global_step": step}, f"{step}.ckpt")
    assert run(*CAPTURE, "--model", "cli_networks:Staged", "--checkpoint", "*.ckpt").code == 0
    assert len(plans) == made
    for step, one in enumerate(networks):
        record = ft.load_report(f"out/activation_report.step{step}.json")
        alone = ft.capture(one, sources.read_samples("train.npz").values)
        assert record.provenance["deviations"] == alone.provenance["deviations"] == 0
        assert_alike(record, alone)


def test_the_option_repeated_does_the_same_and_names_no_file_twice(run, checkpoints):
    paths = [str(path) for path in Path("ck").iterdir()]
    options = [part for path in [*paths, paths[0]] for part in ("--checkpoint", path)]
    result = run(*CAPTURE, *options, "--checkpoint", "ck/a*")
    assert result.code == 0
    assert len(list(Path("out").glob("activation_report.step*.json"))) == 3
    lines = result.out.splitlines()
    assert ["step 30;" in lines[0], "step 200;" in lines[2], "step 1000;" in lines[4]] == [True] * 3
    assert "  fno-telemetry compare out/activation_report.*.json" in result.err.splitlines()
    assert result.err.count("input_transform") == 2  # one warning that holds for all, and its advice


def test_a_file_with_brackets_in_its_name_is_no_glob(run, folder):
    name = save("model[1].ckpt", global_step=5)
    result = run(*CAPTURE, "--checkpoint", name)
    assert result.code == 0
    assert ft.load_report("out/activation_report.json").step == 5


def test_one_that_fails_does_not_lose_the_others(run, checkpoints):
    Path("ck/broken.ckpt").write_text("weights")
    torch.save({"state_dict": {"linear.weight": torch.rand(2, 2)}, "global_step": 40}, "ck/other.ckpt")
    result = run(*CAPTURE, "--checkpoint", "ck/*.ckpt", "--json")
    assert result.code == 3
    assert [report["step"] for report in result.document["reports"]] == [30, 200, 1000]
    errors = {error["checkpoint"]: error["error"] for error in result.document["errors"]}
    assert set(errors) == {"ck/broken.ckpt", "ck/other.ckpt"}
    lines = result.err.splitlines()
    assert next(line for line in lines if "ck/broken.ckpt" in line).startswith("fno-telemetry: not captured")
    assert Path("out/activation_report.log").read_text().count("not captured: ") == 1
    assert result.document["sinks"] == {"json": "ok"}


def test_where_all_fail_nothing_is_left(run, folder):
    Path("one.ckpt").write_text("weights")
    Path("two.ckpt").write_text("weights")
    result = run(*CAPTURE, "--checkpoint", "*.ckpt", "--sink", "tensorboard")
    assert (result.code, result.out) == (2, "")
    assert result.err.count("\n") == 1
    assert "one.ckpt" in result.err
    assert not Path("out").exists()
    for name in ("one.ckpt", "two.ckpt"):
        torch.save({"state_dict": {"linear.weight": torch.rand(2, 2)}}, name)
    result = run(*CAPTURE, "--checkpoint", "*.ckpt", "--sink", "tensorboard")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--checkpoint", "none/*.ckpt"), ("none/*.ckpt", "no file")),
        (("--checkpoint", "mixed/*"), ("mixed/a.ckpt", "mixed/b.ckpt", "steps", "epochs")),
        (("--checkpoint", "twice/*"), ("twice/a.ckpt", "twice/b.ckpt", "step 7", "different weights")),
        (("--checkpoint", "fine/*", "--output-json-name", "x.json"), ("x.step1.json", "exists", "--force")),
    ],
)
def test_what_makes_no_series_is_refused_in_one_line(run, folder, options, words):
    save("mixed/a.ckpt", global_step=7), save("mixed/b.ckpt", epoch=7)
    save("twice/a.ckpt", 0, global_step=7), save("twice/b.ckpt", 1, global_step=7)
    save("fine/a.ckpt", global_step=1), save("fine/b.ckpt", global_step=2)
    Path("out").mkdir()
    Path("out/x.step1.json").write_text("mine")
    result = run(*CAPTURE, *options)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert all(word in result.err for word in words)
    assert [(p.name, p.read_text()) for p in Path("out").iterdir()] == [("x.step1.json", "mine")]


def test_map_takes_one_checkpoint(run, checkpoints):
    two = [part for path in Path("ck").glob("a*") for part in ("--checkpoint", path)]
    result = run("map", "--input", "train.npz", *two)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "given 2 times" in result.err


def test_a_copy_of_another_checkpoint_is_left_out_with_a_note(run, checkpoints):
    save("ck/last.ckpt", 1000, global_step=1000, epoch=3)
    result = run(*CAPTURE, "--checkpoint", "ck/*.ckpt")
    assert result.code == 0
    assert "ck/last.ckpt is left out: it holds the same weights as ck/a-1000.ckpt" in result.err
    assert len(list(Path("out").glob("*.json"))) == 3


def test_epochs_name_reports_where_there_are_no_steps(run, folder):
    for epoch in (0, 2):
        save(f"{epoch}.ckpt", epoch=epoch)
    assert run(*CAPTURE, "--checkpoint", "*.ckpt").code == 0
    assert {path.name for path in Path("out").glob("*.json")} == {
        *("activation_report.epoch0.json", "activation_report.epoch2.json")
    }


def test_checkpoints_without_a_step_go_by_their_names_into_runs_of_their_own(run, folder, read_events):
    # Seeds of one experiment are often kept so.
    for seed in (1, 2):
        save(f"seed{seed}/model.pt", seed)
    save("best.pt", 3, global_step=9)
    line = ("--checkpoint", "seed*/model.pt", "--checkpoint", "best.pt", "--sink", "tensorboard")
    result = run(*CAPTURE, *line, "--json")
    assert result.code == 0
    assert [Path(report["path"]).name for report in result.document["reports"]] == [
        *(f"activation_report.{name}.json" for name in ("step9", "seed1-model", "seed2-model"))
    ]
    assert steps(read_events, "out/tensorboard/out") == [9]
    runs = sorted(path.name for path in Path("out/tensorboard/out").iterdir() if path.is_dir())
    assert runs == ["seed1-model", "seed2-model"]
    for name in runs:
        assert steps(read_events, f"out/tensorboard/out/{name}") == [0]


def test_an_old_step_captured_again_hides_no_later_point(run, checkpoints, read_events):
    sink = ("--sink", "tensorboard")
    assert run(*CAPTURE, "--checkpoint", "ck/*.ckpt", *sink).code == 0
    save("ck/a-200.ckpt", 5, global_step=200)
    before = dict(read_events(Path("out/tensorboard/out"))["rms/lifter"])
    line = ("--checkpoint", "ck/a-2*.ckpt", *sink)
    assert "exists" in run(*CAPTURE, *line).err
    result = run(*CAPTURE, *line, "--force")
    assert result.code == 0
    points = read_events(Path("out/tensorboard/out"))["rms/lifter"]
    assert [step for step, _ in points] == [30, 200, 1000]
    after = dict(points)
    assert (after[30], after[1000]) == (before[30], before[1000])
    assert after[200] != before[200]
    assert "restart a TensorBoard" in result.err


def test_a_step_in_between_and_another_experiment_find_their_places(run, checkpoints, read_events):
    sink = ("--sink", "tensorboard")
    for name in ("z-30", "a-1000", "a-200"):
        line = ("--checkpoint", f"ck/{name}.ckpt", "--output-json-name", f"{name}.json", *sink)
        assert run(*CAPTURE, *line).code == 0
    assert steps(read_events, "out/tensorboard/out") == [30, 200, 1000]
    save("other.ckpt", 5, global_step=100)
    other = ("--checkpoint", "other.ckpt", "--experiment", "other", *sink)
    assert run(*CAPTURE, *other).code == 0
    assert steps(read_events, "out/tensorboard/other") == [100]
    assert steps(read_events, "out/tensorboard/out") == [30, 200, 1000]


def test_a_report_that_cannot_be_read_is_named_when_its_point_is_lost(run, checkpoints, read_events):
    sink = ("--sink", "tensorboard")
    assert run(*CAPTURE, "--checkpoint", "ck/*.ckpt", *sink).code == 0
    Path("out/activation_report.step30.json").write_text("{")
    result = run(*CAPTURE, "--checkpoint", "ck/a-2*", "--force", *sink)
    assert result.code == 0
    assert steps(read_events, "out/tensorboard/out") == [200, 1000]
    assert "left out of TensorBoard: out/activation_report.step30.json" in result.err


def test_epochs_and_steps_of_one_folder_are_not_drawn_as_one_curve(run, checkpoints, read_events):
    sink = ("--sink", "tensorboard")
    assert run(*CAPTURE, "--checkpoint", "ck/*.ckpt", *sink).code == 0
    save("e.ckpt", epoch=3)
    result = run(*CAPTURE, "--checkpoint", "e.ckpt", *sink)
    assert steps(read_events, "out/tensorboard/out") == [3]
    assert "counts in steps and this run in epochs" in result.err


def test_a_dry_run_of_several_says_which_and_writes_nothing(run, checkpoints):
    result = run(*CAPTURE, "--checkpoint", "ck/*.ckpt", "--dry-run")
    assert result.code == 0
    assert result.out.splitlines()[0] == "for each of 3 checkpoints: step30, step200, step1000"
    document = run(*CAPTURE, "--checkpoint", "ck/*.ckpt", "--dry-run", "--json").document
    assert document["checkpoints"] == ["step30", "step200", "step1000"]
    assert not Path("out").exists()


def test_a_redacted_series_holds_no_path(run, checkpoints):
    assert run(*CAPTURE, "--checkpoint", "ck/*.ckpt", "--redact").code == 0
    reports = sorted(Path("out").iterdir())
    assert len(reports) == 3
    for report in reports:
        text = report.read_text()
        assert str(Path.cwd()) not in text
        assert "ck/" not in text
        assert json.loads(text)["provenance"]["checkpoint"].keys() == {"name", "sha256", "checksums"}
