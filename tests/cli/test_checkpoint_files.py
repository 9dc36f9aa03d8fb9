"""Checkpoints that are folders, or hold several sets of weights, in every command that takes them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.distributed import checkpoint as distributed

import fno_telemetry as ft
from fno_telemetry import plugins, sources

CAPTURE = ("capture", "--input", "train.npz", "--output", "out")
ARGUMENTS = {"hidden_channels": 4, "modes": 3, "C": 1, "fno_blocks": 1, "cnn_blocks": 1}

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.distributed:UserWarning")


def network(seed: int) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return plugins.load("architectures", "fno").build(**ARGUMENTS)


def weights(seed: int) -> dict[str, torch.Tensor]:
    return network(seed).state_dict()


def save(path: str, content: object) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def rms(report: str) -> float:
    return ft.load_report(report).module("lifter").stats["rms"]


@pytest.fixture
def two_sets(folder) -> str:
    return save("two.pt", {"model": weights(1), "ema": weights(2), "step": 50})


@pytest.fixture(scope="module")
def alone(samples) -> list[float]:
    """What is measured with each of the sets, without the command."""
    values = sources.read_samples(samples).values
    return [ft.capture(network(seed), values).module("lifter").stats["rms"] for seed in (1, 2)]


def test_the_first_set_is_captured_and_the_other_is_named_everywhere(run, two_sets, alone):
    result = run(*CAPTURE, "--checkpoint", two_sets)
    assert result.code == 0
    told = "'model' was loaded, not 'ema'. --weights ema chooses another"
    assert told in " ".join(result.err.split())
    record = ft.load_report("out/activation_report.json")
    assert [warning for warning in record.warnings if told in warning]
    held = record.provenance["checkpoint"]
    assert (held["weights"], held["other_weights"]) == ("model", ("ema",))
    assert rms("out/activation_report.json") == pytest.approx(alone[0])


@pytest.mark.parametrize("way", ["option", "file"])
def test_weights_takes_the_other_set(run, two_sets, alone, way):
    options: tuple[str, ...] = ("--weights", "ema")
    if way == "file":
        Path("options.toml").write_text('weights = "ema"\n')
        options = ("--config", "options.toml")
    result = run(*CAPTURE, "--checkpoint", two_sets, *options)
    assert result.code == 0
    assert "several sets" not in result.err
    held = ft.load_report("out/activation_report.json").provenance["checkpoint"]
    assert (held["weights"], held["other_weights"]) == ("ema", ("model",))
    assert rms("out/activation_report.json") == pytest.approx(alone[1])


def test_map_and_compare_take_a_set_too(run, two_sets):
    assert (
        run("map", "--input", "train.npz", "--checkpoint", two_sets, "--weights", "ema", "--json").code == 0
    )
    one = save("one.pt", {"model": weights(5), "ema": weights(2)})
    line = ("compare", two_sets, one, "--input", "train.npz", "--json")
    assert run(*line, "--weights", "ema").document["first_diverging"] is None
    assert run(*line).document["first_diverging"] is not None


@pytest.mark.parametrize("command", [CAPTURE, ("map", "--input", "train.npz")])
def test_an_unknown_set_is_refused_in_one_line(run, two_sets, command):
    result = run(*command, "--checkpoint", two_sets, "--weights", "emma")
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert "no set of weights called 'emma'. Did you mean ema?" in result.err
    assert not Path("out").exists()


def test_one_of_a_series_without_that_set_does_not_lose_the_others(run, two_sets):
    save("plain.pt", {"model": weights(3), "step": 60})
    result = run(*CAPTURE, "--checkpoint", "*.pt", "--weights", "ema")
    assert result.code == 3
    assert "plain.pt" in result.err
    assert [path.name for path in Path("out").glob("*.json")] == ["activation_report.step50.json"]


def hub_folder(path: str, seed: int, step: int) -> None:
    """A folder as transformers writes it."""
    Path(path).mkdir(parents=True)
    save_file(weights(seed), f"{path}/model.safetensors")
    Path(path, "trainer_state.json").write_text(json.dumps({"global_step": step}))
    torch.save({"state": {}, "param_groups": []}, f"{path}/optimizer.pt")


def test_a_glob_takes_folders_with_weights_and_no_others(run, folder):
    for seed, step in ((1, 500), (2, 30)):
        hub_folder(f"run/checkpoint-{step}", seed, step)
    Path("run/checkpoint-logs").mkdir()
    result = run(*CAPTURE, "--checkpoint", "run/checkpoint-*", "--json")
    assert result.code == 0
    assert [report["step"] for report in result.document["reports"]] == [30, 500]
    other = run(*CAPTURE, "--checkpoint", "run/*/model*", "--json", "--force")
    assert [report["step"] for report in other.document["reports"]] == [30, 500]
    assert "no folder with weights" in run(*CAPTURE, "--checkpoint", "run/*logs").err


def test_of_shards_and_pieces_a_glob_takes_the_whole(run, folder):
    Path("hub").mkdir()
    files = {}
    for number, (name, value) in enumerate(weights(1).items()):
        files.setdefault(f"m-0000{number % 3 + 1}-of-00003.safetensors", {})[name] = value
    for name, part in files.items():
        save_file(part, f"hub/{name}")
    index = {"weight_map": {key: name for name, part in files.items() for key in part}}
    Path("hub/m.safetensors.index.json").write_text(json.dumps(index))
    distributed.save({"model": weights(2), "step": 7}, checkpoint_id="dcp", no_dist=True)
    result = run(*CAPTURE, "--checkpoint", "hub/m*", "--checkpoint", "dcp/*", "--checkpoint", "dcp", "--json")
    assert result.code == 0
    assert result.document["errors"] == []
    assert [report["step"] for report in result.document["reports"]] == [7, None]


def test_compare_takes_folders_with_weights(run, folder):
    hub_folder("a", 1, 5)
    distributed.save({"model": weights(1)}, checkpoint_id="b", no_dist=True)
    result = run("compare", "a", "b", "--input", "train.npz")
    assert (result.code, result.out.strip()) == (0, "the same within the thresholds")
    assert run("compare", "a", "b").err.count("--input FILE") == 1


def test_a_folder_with_reports_is_one_of_reports_also_next_to_weights(run, captured):
    save_file(weights(1), "out/model.safetensors")
    assert run("compare", "out", "out").code == 0


def test_several_saves_of_one_epoch_are_a_series_without_steps(run, folder):
    for name, epoch in (("early", 0), ("late", 0), ("next", 1)):
        save(f"ck/{name}.pt", {"model": weights(len(name)), "epoch": epoch})
    save("ck/copy.pt", {"model": weights(len("late")), "epoch": 0})
    result = run(*CAPTURE, "--checkpoint", "ck/*.pt", "--json")
    assert result.code == 0
    reports = {Path(report["path"]).name: report["step"] for report in result.document["reports"]}
    assert len(reports) == 3
    assert set(reports.values()) == {None}
    text = " ".join(result.err.split())
    assert "are both of epoch 0, so epochs are not taken for steps" in text
    assert "is left out: it holds the same weights" in text
