"""`capture`: what it writes and prints, option by option."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

import fno_telemetry as ft
from fno_telemetry import plugins
from support import cli_networks


class Thing:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("trace",)


ARCHITECTURES = ("fno", "hybrid", "stable_hybrid", "fno_vanilla")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_goes_end_to_end_into_all_sinks(run, folder, small, name):
    line = ("--input", "train.npz", "--output", "out", "--architecture", name, "--sink", "json,tensorboard")
    result = run("capture", *line, *small, "--batch-size", 2, "--strict")
    assert result.code == 0
    assert result.out.startswith(f"{name}: ")
    assert "untrained weights, seed 0; 3 samples in batches of 2" in result.out
    assert [line.split(":")[0].strip() for line in result.err.splitlines()] == [
        "look at it",
        "fno-telemetry view out/activation_report.json",
        "fno-telemetry view --tensorboard out/tensorboard",
        "or",
    ]
    record = ft.load_report("out/activation_report.json")
    assert record.blocks
    assert (record.summary["architecture"], record.summary["n_samples"]) == (name, 3)
    assert {p.name for p in Path("out").iterdir()} == {
        *("activation_report.json", "activation_report.log", "tensorboard")
    }
    assert list(Path("out/tensorboard/out").glob("events.out.tfevents.*"))


def test_a_normal_capture_prints_nothing_on_stderr_and_raises_no_warning(spawn, folder, tiny):
    # Unicode and spaces in paths, no home, every warning an error: a cluster job has it all.
    odd = folder / "Daten für uns 数"
    odd.mkdir()
    (folder / "train.npz").rename(odd / "näch ste.npz")
    line = ("capture", "--input", odd / "näch ste.npz", "--output", odd / "aus gabe", *tiny)
    result = spawn(*line, "--sink", "json,tensorboard", "--quiet", python=("-W", "error"), HOME=None)
    assert (result.code, result.out, result.err) == (0, "", "")
    assert (odd / "aus gabe" / "activation_report.json").is_file()
    assert list((odd / "aus gabe" / "tensorboard").rglob("events.out.tfevents.*"))


def test_a_file_name_that_is_not_utf_8_is_no_trouble(run, folder, tiny):
    name = os.fsdecode(b"na\xefve.npz")
    Path("train.npz").rename(name)
    result = run("capture", "--input", name, "--output", "out", *tiny, "--json")
    assert result.code == 0
    assert ft.load_report("out/activation_report.json").provenance["input"]["path"]
    assert Path("out/activation_report.log").read_text(encoding="utf-8").count("na\\udcefve.npz") == 2


def test_json_is_one_document_that_says_what_was_done(run, folder, tiny):
    result = run(
        "capture", "--input", "train.npz", "--output", "out", *tiny, "--json", "--sink", "tensorboard"
    )
    document = result.document
    assert set(document) == {"schema", "reports", "sinks", "errors"}
    assert document["sinks"] == {"json": "ok", "tensorboard": "ok"}
    assert document["errors"] == []
    [report] = document["reports"]
    assert report["path"] == str(Path("out/activation_report.json"))
    assert report["step"] is None
    assert report["summary"] == json.loads(Path(report["path"]).read_text())["summary"]


def test_quiet_prints_nothing(run, folder, tiny):
    result = run("capture", "-q", "--input", "train.npz", "--output", "out", *tiny)
    assert (result.code, result.out, result.err) == (0, "", "")


def test_the_log_beside_the_report_holds_what_happened(run, folder, tiny):
    np.savez("flat.npz", diffraction=np.ones((2, 16, 16), np.float32))
    line = ("capture", "--input", "flat.npz", "--output", "out", *tiny, "--sink", "tensorboard")
    result = run(*line, "--set", "api_key=hush")
    assert result.code == 2
    assert run(*line).code == 0
    log = Path("out/activation_report.log").read_text()
    expected = [
        "fno-telemetry capture --input flat.npz --output out",
        f'"fno_telemetry": "{ft.__version__}"',
        f'"torch": "{torch.__version__}"',
        '"path": "flat.npz"',
        '"digest": "',
        "warning: all 512 input values read are equal",
        'sinks: {"json": "ok", "tensorboard": "ok"}',
    ]
    assert [text for text in expected if text not in log] == []


def test_warnings_reach_the_report_and_stderr(run, folder, tiny):
    np.savez("flat.npz", diffraction=np.zeros((2, 16, 16), np.float32))
    result = run("capture", "--input", "flat.npz", "--output", "out", *tiny)
    assert "warning: all 512 input values read are zero" in result.err.splitlines()
    assert len(ft.load_report("out/activation_report.json").warnings) == 1


def test_the_command_in_the_report_is_what_was_typed_without_secrets(run, folder):
    line = ("capture", "--input", "train.npz", "--output", "out", "--model", "cli_networks:with_path")
    assert run(*line, "--set", "weights=a b").code == 2
    assert run(*line, "--set", 'weights="a b"').code == 0
    provenance = ft.load_report("out/activation_report.json").provenance
    assert provenance["command"] == (
        "fno-telemetry capture --input train.npz --output out --model cli_networks:with_path "
        "--set 'weights=\"a b\"'"
    )
    assert provenance["arguments"] == {"weights": "a b"}


def test_a_secret_among_the_settings_is_not_written(run, folder):
    Path("secretive.py").write_text(
        "from cli_networks import Plain\ndef make(api_key, tokens): return Plain()\n"
    )
    line = ("capture", "--input", "train.npz", "--output", "out", "--model", "secretive:make")
    assert run(*line, "--set", "api_key=hush", "--set", "tokens=4").code == 0
    text = Path("out/activation_report.json").read_text() + Path("out/activation_report.log").read_text()
    assert "hush" not in text
    assert ft.load_report("out/activation_report.json").provenance["arguments"] == {
        "api_key": "***",
        "tokens": 4,
    }


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), {"n_samples": 3, "batch_size": 1}),
        (("--max-samples", 2), {"n_samples": 2, "batch_size": 1}),
        (("--batch-size", 2), {"n_samples": 3, "batch_size": 2}),
        (("--seed", 7), {"weights": "untrained, seed 7"}),
        (("--set", "C=1", "--set", "cnn_blocks=1"), {"architecture": "fno", "channels": 1}),
        (("--device", "cpu:0"), {"device": "cpu"}),
        (("--axes", "HWN"), {"n_samples": 8}),
        (("--key", "diffraction"), {"n_samples": 3}),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_options_do_what_they_say(run, folder, tiny, options, expected):
    result = run("capture", "--input", "train.npz", "--output", "out", *tiny, *options, "--json")
    summary = result.document["reports"][0]["summary"]
    assert {key: summary[key] for key in expected} == expected


def test_the_seed_alone_decides_the_weights(run, folder, tiny):
    def rms(name, seed):
        line = ("--output", "out", "--output-json-name", f"{name}.json", *tiny, "--seed", seed)
        assert run("capture", "--input", "train.npz", *line).code == 0
        return ft.load_report(f"out/{name}.json").module("lifter").stats["rms"]

    first = rms("a", 1)
    assert rms("b", 1) == first
    assert rms("c", 2) != first


def test_layers_and_exclude_choose_what_is_measured(run, folder, small):
    filters = ("--layers", "fno_blocks.*", "--layers", "lifter", "--exclude", "*.act")
    assert run("capture", "--input", "train.npz", "--output", "out", *small, *filters).code == 0
    names = {module.name for module in ft.load_report("out/activation_report.json").modules}
    parts = [f"fno_blocks.{i}{end}" for i in range(4) for end in ("", ".spectral", ".local_conv")]
    assert names == {"lifter", *parts}


def test_several_reports_share_a_folder_and_force_replaces_one(run, folder, tiny):
    line = ("capture", "--input", "train.npz", "--output", "out", *tiny)
    assert run(*line).code == 0
    assert run(*line, "--output-json-name", "other.json").code == 0
    before = Path("out/activation_report.json").read_bytes()
    refused = run(*line)
    assert refused.code == 2
    assert "--force" in refused.err
    assert Path("out/activation_report.json").read_bytes() == before
    assert run(*line, "--force", "--max-samples", 1).code == 0
    assert ft.load_report("out/activation_report.json").summary["n_samples"] == 1
    assert ft.load_report("out/other.json").summary["n_samples"] == 3


@pytest.mark.parametrize(("options", "name"), [((), "out"), (("--experiment", "wide"), "wide")])
def test_the_experiment_names_the_tensorboard_run(run, folder, tiny, options, name):
    line = ("capture", "--input", "train.npz", "--output", "a/out", *tiny, "--sink", "tensorboard")
    assert run(*line, *options).code == 0
    assert [path.name for path in Path("a/out/tensorboard").iterdir()] == [name]


@pytest.mark.parametrize(
    ("spec", "model", "count"), [("tuples", "Scaled", 4), ("dicts", "Scaled", 2), ("tensors", "Plain", 8)]
)
def test_batches_come_from_a_function(run, folder, spec, model, count):
    line = ("--batches", f"cli_networks:{spec}", "--model", f"cli_networks:{model}", "--output", "out")
    result = run("capture", *line, "--json")
    assert result.document["reports"][0]["summary"]["n_samples"] == count
    assert (
        ft.load_report("out/activation_report.json").provenance["input"]["batches"] == f"cli_networks:{spec}"
    )


@pytest.mark.parametrize(
    ("spec", "model"), [("samples", "TakesSample"), ("labelled", "TakesLabelled"), ("tuples", "Scaled")]
)
def test_batches_of_any_kind_work_as_in_python(run, folder, spec, model):
    line = ("--batches", f"cli_networks:{spec}", "--model", f"cli_networks:{model}", "--output", "out")
    assert run("capture", *line, "--loss", "cli_networks:square", "--seed", 5).code == 0
    shown = ft.load_report("out/activation_report.json")
    torch.manual_seed(5)
    network = getattr(cli_networks, model)()
    alone = ft.capture(network, getattr(cli_networks, spec)(), loss=cli_networks.square)
    assert shown.summary["n_samples"] == alone.summary["n_samples"]
    if spec != "tuples":  # which are drawn anew
        assert shown.modules == alone.modules


@pytest.mark.parametrize("weights", ["state dict", "lightning"])
def test_a_checkpoint_says_how_its_network_is_built(run, folder, weights):
    network = plugins.load("architectures", "fno_vanilla").build(hidden_channels=6, n_blocks=2, modes=3, C=1)
    state = network.state_dict()
    if weights == "lightning":
        state = {"state_dict": {f"model.generator.{k}": v for k, v in state.items()}, "global_step": 1200}
    torch.save(state, "model.ckpt")
    line = ("capture", "--input", "train.npz", "--output", "out", "--checkpoint", "model.ckpt")
    result = run(*line)
    assert result.code == 0
    record = ft.load_report("out/activation_report.json")
    assert record.summary["architecture"] == "fno_vanilla"
    assert record.summary["weights"] == "checkpoint"
    assert len(record.provenance["checkpoint"]["sha256"]) == 64
    if weights == "lightning":
        assert record.step == 1200
        assert "weights from the checkpoint, step 1200;" in result.out


def test_missing_parameters_are_accepted_only_when_asked(run, folder, small):
    network = plugins.load("architectures", "fno").build(hidden_channels=4, modes=3, C=1)
    state = network.state_dict()
    del state["output_proj.bias"]
    torch.save(state, "part.pt")
    line = ("capture", "--input", "train.npz", "--output", "out", "--checkpoint", "part.pt")
    assert "--allow-missing" in run(*line, "--architecture", "fno").err
    assert not Path("out").exists()
    result = run(*line, "--architecture", "fno", "--allow-missing")
    assert result.code == 0
    assert "output_proj.bias" in result.err


def test_a_dry_run_says_what_would_be_captured_and_writes_nothing(run, folder, small):
    line = ("capture", "--input", "train.npz", "--output", "out", *small, "--dry-run")
    before = set(Path().rglob("*"))
    text, document = run(*line).out, run(*line, "--json", "--layers", "lifter").document
    assert text.startswith("would run 3 samples and record 27 module calls and 4 blocks\nabout 14 MiB ")
    assert "\n  fno_blocks.0.spectral: spectral, N×4×16×16\n" in text
    assert document["modules"] == [
        {"name": "lifter", "role": "lifting", "shape": [None, 4, 16, 16], "calls": 1}
    ]
    assert set(Path().rglob("*")) == before


def test_a_map_by_hand_is_taken(run, folder, tiny):
    Path("map.toml").write_text(
        'schema = "fno-telemetry-map/1"\n[[modules]]\nname = "intermediate"\nrole = "projection"\n'
    )
    line = ("capture", "--input", "train.npz", "--output", "out", *tiny, "--map", "map.toml")
    assert run(*line).code == 0
    assert ft.load_report("out/activation_report.json").module("intermediate").role == "projection"


def test_a_trusted_checkpoint_is_unpickled(run, folder):
    network = plugins.load("architectures", "fno").build(hidden_channels=4, modes=3, C=1)
    torch.save({"state_dict": network.state_dict(), "odd": Thing()}, "odd.pt")
    line = ("capture", "--input", "train.npz", "--output", "out", "--checkpoint", "odd.pt")
    # What stands next to the weights is read as data.
    assert run(*line).code == 0
    assert not Path("trace").exists()
    assert run(*line, "--trust-checkpoint", "--force").code == 0
    assert Path("trace").is_dir()


def test_a_light_budget_is_named_in_the_report_and_in_what_is_shown(run, folder, small):
    line = ("capture", "--input", "train.npz", "--output", "out", *small)
    refused = run(*line, "--budget", "lite")
    assert (refused.code, refused.err) == (
        2,
        "fno-telemetry: unknown budget 'lite'. Did you mean light? Known: full, light.\n",
    )
    assert run(*line, "--budget", "light").code == 0
    assert ft.load_report("out/activation_report.json").provenance["budget"] == "light"
    assert run("view", "out/activation_report.json").out.splitlines()[0].endswith("; light budget")
