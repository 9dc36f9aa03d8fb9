"""`capture --loss`: gradients of the user's loss, in the report and in every dashboard."""

import json
from pathlib import Path

import jsonschema
import pytest
import torch

import fno_telemetry as ft
from fno_telemetry import plugins, report, sources
from fno_telemetry.sinks.wandb import rows

GRADIENTS = {"grad_norm", "grad_abs_mean", "grad_to_weight", "grad_nonfinite_count", "output_grad_rms"}
LOSS = ("--loss", "cli_networks:loud_square")
CAPTURE = ("capture", "--input", "train.npz", "--output", "out")
PLAIN = ("capture", "--batches", "cli_networks:tensors", "--model", "cli_networks:Plain", "--output", "out")


def square(output, batch):
    return output.square().mean()


def save(path, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        arguments = {"hidden_channels": 4, "modes": 3, "C": 1, "fno_blocks": 1, "cnn_blocks": 1}
        network = plugins.load("architectures", "fno").build(**arguments)
    torch.save({"state_dict": network.state_dict(), "global_step": seed}, path)
    return network


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_report_holds_the_gradients_of_the_loss_whatever_the_batch_size(run, folder, tiny, size):
    network = save("w.pt", 3)
    result = run(*CAPTURE, "--checkpoint", "w.pt", *LOSS, "--batch-size", size, "--json")
    assert (result.code, "a loss that prints" in result.err) == (0, True)
    record = ft.load_report("out/activation_report.json")
    assert record.provenance["loss"] == "cli_networks:loud_square"
    assert result.document["reports"][0]["summary"]["loss"] == record.summary["loss"]
    expected = ft.capture(network, sources.read_samples("train.npz").values, loss=square)
    assert record.summary["loss"] == pytest.approx(expected.summary["loss"], rel=1e-6)
    for module in expected.modules:
        for key in GRADIENTS & {*module.stats}:
            found = record.module(module.name, module.call, module.item).stats[key]
            assert found == (
                None if module.stats[key] is None else pytest.approx(module.stats[key], rel=1e-5)
            )
    assert any(module.stats.get("grad_norm") for module in record.modules)


def test_gradients_are_in_every_sink_and_satisfy_the_schema(run, folder, tiny, read_events):
    assert run(*CAPTURE, *tiny, *LOSS, "--sink", "json,tensorboard", "--detail", "full").code == 0
    document = json.loads(Path("out/activation_report.json").read_text())
    assert list(jsonschema.Draft202012Validator(report.json_schema()).iter_errors(document)) == []
    events = read_events(Path("out/tensorboard/out"))
    record = ft.load_report("out/activation_report.json")
    defined = [(m, key) for m in record.modules for key in GRADIENTS if m.stats.get(key) is not None]
    assert len(defined) > 10
    for module, key in defined:
        ((_, value),) = events[f"{key}/{module.name.replace('.', '/')}"]
        assert value == pytest.approx(module.stats[key], rel=1e-6)
    assert "spectral_local_gradient_ratio/fno_blocks/0" in events
    scalars = rows.row(record, "full").scalars
    assert scalars["grad_norm/output_proj"] == record.module("output_proj").stats["grad_norm"]
    block = record.blocks[0].stats["spectral_local_gradient_ratio"]
    assert scalars["spectral_local_gradient_ratio/fno_blocks/0"] == block
    shown = run("view", "out", "--json").document
    assert shown["modules"][1]["stats"].keys() >= GRADIENTS
    assert f"; loss {record.summary['loss']:.4g}" in run("view", "out").out


def test_without_a_loss_no_dashboard_has_a_key_more(run, folder, tiny, read_events):
    assert run(*CAPTURE, *tiny, "--sink", "json,tensorboard", "--detail", "full").code == 0
    tags = read_events(Path("out/tensorboard/out"))
    assert not [tag for tag in tags if "grad" in tag or "loss" in tag]
    scalars = rows.row(ft.load_report("out/activation_report.json"), "full").scalars
    assert not [key for key in scalars if "grad" in key or "loss" in key]
    document = json.loads(Path("out/activation_report.json").read_text())
    assert "grad" not in json.dumps([document["modules"], document["blocks"]])
    assert "loss" not in document["summary"].keys() | document["provenance"].keys()


def test_every_checkpoint_has_its_own_loss(run, folder, read_events):
    networks = {step: save(f"step={step}.ckpt", step) for step in (10, 20)}
    line = ("--checkpoint", "step=10.ckpt", "--checkpoint", "step=20.ckpt", "--sink", "tensorboard")
    assert run(*CAPTURE, *LOSS, *line).code == 0
    samples = sources.read_samples("train.npz").values
    losses = []
    for step, network in networks.items():
        record = ft.load_report(f"out/activation_report.step{step}.json")
        with torch.no_grad():
            losses.append((step, pytest.approx(float(square(network(samples), samples)))))
        assert record.summary["loss"] == losses[-1][1]
    events = read_events(Path("out/tensorboard/out"))
    assert events["captured_loss"] == losses
    assert [step for step, _ in events["grad_norm/output_proj"]] == [10, 20]


def test_the_loss_may_stand_in_a_file_and_the_command_line_wins(run, folder):
    Path("c.toml").write_text('loss = "cli_networks:dividing"\n')
    result = run(*PLAIN, "--config", "c.toml")
    assert (result.code, Path("out").exists()) == (2, False)
    assert run(*PLAIN, "--config", "c.toml", "--loss", "cli_networks:square").code == 0
    assert ft.load_report("out/activation_report.json").provenance["loss"] == "cli_networks:square"


def test_a_dry_run_checks_the_name_and_takes_no_gradient(run, folder):
    result = run(*PLAIN, "--dry-run", "--loss", "cli_networks:dividing")
    assert (result.code, Path("out").exists()) == (0, False)
    assert run(*PLAIN, "--dry-run", "--loss", "cli_networks:dividin").code == 2


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ("cli_networks", "expected mse, relative_l2 or package.module:function"),
        ("nowhere.at_all:loss", "there is no module 'nowhere'"),
        ("cli_networks:sqare", "Did you mean square"),
        ("cli_networks:NOT_BATCHES", "is of type int; a function (output, batch) -> scalar was expected"),
        ("cli_networks:dividing", "the loss raised ZeroDivisionError: division by zero"),
        (
            "cli_networks:per_sample",
            "the loss returned a float32 tensor of shape (2,); expected a scalar tensor",
        ),
        ("torch.nn:MSELoss", "the loss raised RuntimeError"),
    ],
)
@pytest.mark.parametrize("checkpoints", [0, 1, 2])
def test_a_loss_that_cannot_be_used_is_one_line_and_leaves_nothing(run, folder, loss, said, checkpoints):
    line = []
    for step in range(checkpoints):
        path = f"step={step}.ckpt"
        torch.save({f"conv.{k}": v for k, v in torch.nn.Conv2d(1, 2, 3).state_dict().items()}, path)
        line += ["--checkpoint", path]
    result = run(*PLAIN, "--loss", loss, *line)
    assert (result.code, result.out) == (2, "")
    (text,) = result.err.splitlines()
    assert "--loss" in text
    assert loss in text
    assert said in text
    assert not Path("out").exists()
