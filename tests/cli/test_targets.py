"""`capture --inputs --target --prediction --loss NAME`: batches as people have them, and their accuracy."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch

import fno_telemetry as ft
from fno_telemetry import plugins, report
from support.cli_batches import Net, X, Y

MODEL = ("--model", "cli_batches:Net", "--output", "out", "--batches")
CAPTURE = ("capture", *MODEL)
PAIRS = ("--inputs", "0", "--target", "1")
DOUBLE = ("--prediction", "cli_batches:double")
ARRAYS = ("diffraction", "amplitude", "phase")


def read() -> ft.CaptureRecord:
    return ft.load_report("out/activation_report.json")


def relative_l2(prediction: torch.Tensor, target: torch.Tensor) -> float:
    return float((prediction - target).abs().double().norm() / target.abs().double().norm())


@pytest.fixture
def net() -> Net:
    """The network of seed 0, as the command draws it."""
    torch.manual_seed(0)
    return Net().requires_grad_(False)


@pytest.mark.parametrize(
    ("batches", "options", "inputs", "target"),
    [
        ("loader", PAIRS, ["0"], ["1"]),
        ("loader", ("--target", "1"), None, ["1"]),
        ("arrays", ("--inputs", "0", "--target", "-1"), ["0"], ["-1"]),
        ("with_mask", ("--inputs", "0,1", "--target", "2"), ["0", "1"], ["2"]),
        ("named", ("--inputs", "image", "--target", "truth"), ["image"], ["truth"]),
        ("graphs", ("--inputs", "x", "--target", "y"), ["x"], ["y"]),
        ("dicts", (), ["x"], ["y"]),
    ],
)
def test_the_usual_batches_have_an_accuracy(run, folder, net, batches, options, inputs, target):
    result = run(*CAPTURE, f"cli_batches:{batches}", *options)
    assert result.code == 0, result.err
    record = read()
    expected = relative_l2(net(X), Y)
    assert record.accuracy.stats["relative_l2"] == pytest.approx(expected, rel=1e-6)
    assert f"accuracy: relative L2 error {expected:.3g}" in result.out
    assert record.target.stats["rms"] == pytest.approx(float(Y.square().mean().sqrt()), rel=1e-6)
    chosen = {} if inputs is None else {"inputs": tuple(inputs)}
    assert record.provenance["input"]["parts"] == {**chosen, "target": tuple(target)}
    said = "warning: batches hold x and y, and the forward has no argument y" in result.err
    assert said == (batches == "dicts")


def test_keys_that_the_forward_has_are_given_by_name(run, folder, net):
    assert run(*CAPTURE, "cli_batches:named", "--inputs", "mask,x", "--target", "truth").code == 0
    record = read()
    expected = relative_l2(net(X, (X > 0.5).float()), Y)
    assert record.accuracy.stats["relative_l2"] == pytest.approx(expected, rel=1e-6)
    assert [entered.item for entered in record.inputs] == ["mask", "x"]


@pytest.mark.parametrize("name", ["mse", "relative_l2"])
def test_a_loss_by_name_records_its_gradients(run, folder, net, name):
    options = (*PAIRS, "--loss", name, *DOUBLE)
    assert run(*CAPTURE, "cli_batches:loader", *options).code == 0
    record = read()
    error = (2 * net(X) - Y).flatten(1).norm(dim=1)
    expected = error.square().mean() / 64 if name == "mse" else (error / Y.flatten(1).norm(dim=1)).mean()
    assert record.summary["loss"] == pytest.approx(float(expected), rel=1e-5)
    assert record.module("conv").stats["grad_norm"] > 0
    assert (record.provenance["loss"], record.provenance["prediction"]) == (name, "cli_batches:double")


@pytest.fixture
def fields(folder: Path) -> dict[str, np.ndarray]:
    """Amplitudes in, amplitude and phase of a complex field out, in the layout of ptychography files."""
    rng = np.random.default_rng(0)
    made = {name: rng.random((4, 16, 16, 1), dtype=np.float32) for name in ARRAYS}
    np.savez("fields.npz", **made, positions=rng.random((4, 2)), one=rng.random((1, 16, 16, 1)))
    return made


def test_an_array_of_the_file_is_the_target(run, folder, fields, net):
    options = ("--inputs", "diffraction", "--target", "amplitude", "--batch-size", "2", "--max-samples", "3")
    result = run("capture", *MODEL[:4], "--input", "fields.npz", *options)
    assert result.code == 0, result.err
    record = read()
    first = {name: torch.from_numpy(array[:3]).movedim(-1, 1) for name, array in fields.items()}
    expected = relative_l2(net(first["diffraction"]), first["amplitude"])
    assert record.accuracy.stats["relative_l2"] == pytest.approx(expected, rel=1e-6)
    assert (record.summary["n_samples"], record.summary["batch_size"]) == (3, 2)
    [other] = record.provenance["input"]["other_arrays"]
    assert (other["key"], other["axes"]) == ("amplitude", "NHWC")


def test_the_networks_of_this_package_are_compared_with_complex_targets(run, folder, fields):
    options = ("--target", "amplitude,phase", "--prediction", "cli_batches:as_complex", "--loss", "mse")
    small = {"hidden_channels": 4, "modes": 3, "fno_blocks": 1, "cnn_blocks": 1}
    sets = [part for key, value in small.items() for part in ("--set", f"{key}={value}")]
    result = run("capture", "--input", "fields.npz", "--output", "out", *options, *sets)
    assert result.code == 0, result.err
    torch.manual_seed(0)
    network = plugins.load("architectures", "fno").build(C=1, **small).requires_grad_(False)
    array = {name: torch.from_numpy(values).movedim(-1, 1) for name, values in fields.items()}
    output = torch.view_as_complex(network(array["diffraction"]).contiguous()).movedim(-1, 1)
    target = torch.polar(array["amplitude"], array["phase"])
    record = read()
    assert record.accuracy.stats["relative_l2"] == pytest.approx(relative_l2(output, target), rel=1e-5)
    assert (record.target.values_of, record.target.shape, record.target.spatial_axes) == (
        "|z|",
        (4, 1, 16, 16),
        (2, 3),
    )


def test_a_tensor_file_has_inputs_and_targets_too(run, folder, net):
    torch.save({"x": X[:, 0], "y": Y[:, 0]}, "data.pt")
    options = ("--input", "data.pt", "--inputs", "x", "--target", "y")
    result = run("capture", *MODEL[:4], *options)
    assert result.code == 0, result.err
    assert read().accuracy.stats["relative_l2"] == pytest.approx(relative_l2(net(X), Y), rel=1e-6)


def test_a_file_of_options_may_choose_the_parts(run, folder, net):
    model = 'model = "cli_batches:Net"\nbatches = "cli_batches:loader"\noutput = "out"\n'
    Path("c.toml").write_text(model + 'inputs = "1"\ntarget = "0"\n')
    assert run("capture", "--config", "c.toml", *PAIRS).code == 0
    assert read().accuracy.stats["relative_l2"] == pytest.approx(relative_l2(net(X), Y), rel=1e-6)


@pytest.mark.parametrize(
    ("batches", "options", "words"),
    [
        ("arrays", ("--inputs", "2"), ["--inputs '2': a batch has no such part", "1: (3, 1, 8, 8) float32"]),
        (
            "loader",
            ("--inputs", "x"),
            ["--inputs 'x'", "0: (3, 1, 8, 8) float32", "--inputs 0 --target 1 would fit"],
        ),
        ("loader", ("--inputs", "0", "--target", "y"), ["--target 'y'", "--inputs 0 --target 1 would fit"]),
        ("named", ("--target", "y"), ["--target 'y'", "truth: (3, 1, 8, 8)", "--target truth would fit"]),
        ("loader", ("--inputs", "d.npz"), ["--inputs 'd.npz'", "--inputs 0 --target 1"]),
        ("loader", ("--inputs", ","), ["--inputs ',': expected positions or keys"]),
        ("loader", ("--inputs", "0", "--target", "0,1"), ["--target has several parts", "--prediction is"]),
        (
            "loader",
            ("--inputs", "0", "--loss", "mse"),
            ["--loss 'mse'", "none is given", "--inputs 0 --target 1"],
        ),
        ("loader", ("--inputs", "0", "--loss", "mae"), ["--loss 'mae': expected mse, relative_l2 or pack"]),
        (
            "loader",
            ("--target", "1", "--prediction", "cli_batches:failing"),
            ["--prediction raised TypeError"],
        ),
        (
            "loader",
            ("--target", "1", "--prediction", "cli_batches:NUMBERS"),
            ["--prediction", "of type ndarray"],
        ),
        ("loader", ("--target", "1", "--prediction", "cli_batches:nosuch"), ["--prediction", "nosuch"]),
        ("dataset", (), ["gave a TensorDataset", "DataLoader(dataset, batch_size=4)"]),
        ("named", (), ["'mask'", "--inputs mask,x --target truth would give parts 'mask' and 'x'"]),
        ("graphs", (), ["one argument: Graph of (x: (3, 1, 8, 8) float32", "--inputs x --target y"]),
        ("loader", ("--input", "0"), ["give either --input FILE or --batches", "--inputs names parts"]),
    ],
)
def test_a_choice_that_does_not_fit_is_answered_with_one_that_does(run, folder, batches, options, words):
    result = run(*CAPTURE, f"cli_batches:{batches}", *options)
    assert (result.code, result.out) == (2, "")
    [line] = result.err.splitlines()
    assert all(word in line for word in words), line
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--target", "amplitud"), ["amplitud", "with --target", "Did you mean amplitude?"]),
        (PAIRS, ["array called '0'", "with --inputs", "diffraction, amplitude"]),
        (("--target", "one"), ["array 'one' has 1 samples", "'diffraction' has 4"]),
        (("--target", "positions"), ["positions", "shape (4, 2) has no usual order of axes"]),
        (("--key", "phase", "--inputs", "phase"), ["--key and --inputs both name arrays"]),
        (
            ("--target", "amplitude"),
            ["(1, 16, 16, 1, 2) float32", "(1, 1, 16, 16) float32", "such as (torch.view"],
        ),
    ],
)
def test_an_array_that_does_not_fit_is_named(run, folder, fields, options, words):
    result = run("capture", "--input", "fields.npz", "--output", "out", *options)
    assert (result.code, result.out) == (2, "")
    [line] = result.err.splitlines()
    assert all(word in line for word in words), line


def test_map_and_a_dry_run_take_the_parts_of_a_batch(run, folder):
    for command in (("map",), ("capture", "--dry-run", "--output", "out")):
        result = run(*command, *MODEL[:2], "--batches", "cli_batches:loader", *PAIRS)
        assert result.code == 0, result.err
        assert "conv" in result.out


def test_compared_checkpoints_have_an_accuracy_too(run, folder):
    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.save(Net().state_dict(), f"{seed}.pt")
    options = (*MODEL[:2], "--batches", "cli_batches:loader", *PAIRS, *DOUBLE)
    result = run("compare", "0.pt", "1.pt", *options, "--sink", "tensorboard", "--output", "boards")
    assert result.code in (0, 1), result.err
    assert [*Path("boards").rglob("events.out.tfevents.*")]


def test_the_report_with_a_target_fits_its_schema(run, folder):
    assert run(*CAPTURE, "cli_batches:loader", *PAIRS).code == 0
    document = json.loads(Path("out/activation_report.json").read_text())
    assert not list(jsonschema.Draft202012Validator(report.json_schema()).iter_errors(document))
