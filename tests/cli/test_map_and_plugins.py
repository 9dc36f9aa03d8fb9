"""`map`: how a model was understood; `plugins`: what can be used."""

from pathlib import Path

import pytest

import fno_telemetry as ft
from fno_telemetry import plugins
from fno_telemetry.statistics import kernels

ROLES = {"lifting", "spectral", "local", "block", "activation", "norm", "projection", "other"}


@pytest.mark.parametrize("name", ["fno", "hybrid", "stable_hybrid", "fno_vanilla"])
def test_the_map_names_every_module_with_role_and_reason(run, folder, small, name):
    line = ("map", "--input", "train.npz", "--architecture", name, *small)
    document, text = run(*line, "--json").document, run(*line).out
    assert document["schema"] == "fno-telemetry-map/1"
    for module in document["modules"]:
        assert {"name", "class", "role", "reason", "spatial_axes"} <= set(module)
        assert module["role"] in ROLES
        assert module["name"].rpartition(".")[2] in text
    roles = {module["role"] for module in document["modules"]}
    assert {"lifting", "spectral", "local", "block", "projection"} <= roles
    for block in document["blocks"]:
        assert f"{block['name']}: {block['spectral'][0]} + {block['local'][0]}" in text


def test_a_written_map_is_read_back_and_can_be_changed(run, folder, small):
    line = ("map", "--input", "train.npz", *small)
    result = run(*line, "--output", "new folder/map.toml")
    assert (result.code, result.err) == (0, "wrote new folder/map.toml; --map reads it back\n")
    path = Path("new folder/map.toml")
    path.write_text(
        path.read_text().replace('name = "lifter"\nrole = "lifting"', 'name = "lifter"\nrole = "norm"')
    )
    again = run(*line, "--map", path, "--json").document
    [lifter] = [module for module in again["modules"] if module["name"] == "lifter"]
    assert (lifter["role"], lifter["reason"]) == ("norm", "given by hand")
    assert run(*line, "--output", path).code == 2
    assert run(*line, "--output", path, "--force", "--quiet").err == ""


def test_a_map_file_wins_over_structure_and_structure_over_class(run, folder):
    line = ("--input", "train.npz", "--model", "cli_networks:Operator")
    seen = run("map", *line).out
    assert "beside  local  InstanceNorm2d, space axes 2, 3: added to spectral, with the same input" in seen
    Path("map.toml").write_text(
        'schema = "fno-telemetry-map/1"\n[[modules]]\nname = "beside"\nrole = "norm"\n'
    )
    stated = run("map", *line, "--map", "map.toml").out
    assert "beside  norm  InstanceNorm2d, space axes 2, 3: given by hand" in stated
    assert run("capture", *line, "--map", "map.toml", "--output", "out").code == 0
    assert ft.load_report("out/activation_report.json").module("beside").role == "norm"


def test_a_model_without_branches_has_a_map_too(run, folder):
    result = run("map", "--batches", "cli_networks:tuples", "--model", "cli_networks:Scaled")
    assert result.code == 0
    assert "conv  other  Conv2d" in result.out
    assert "blocks" not in result.out


def test_plugins_lists_every_kind_with_what_is_missing(run, folder):
    text, document = run("plugins").out, run("plugins", "--json").document
    assert document["schema"] == "fno-telemetry-plugins/1"
    known = {(entry["kind"], entry["name"]) for entry in document["plugins"]}
    for kind in ("sinks", "statistics", "architectures"):
        assert {name for of, name in known if of == kind} == set(plugins.names(kind))
    assert [name for _, name in known if name not in text] == []


def test_what_is_missing_is_shown_with_its_brackets(run, folder, monkeypatch):
    missing = ft.list_plugins()[1].__class__("sinks", "w", "built in", "pip install 'fno-telemetry[wandb]'")
    monkeypatch.setattr(ft, "list_plugins", lambda: [missing])
    assert "pip install 'fno-telemetry[wandb]'" in run("plugins").out


@pytest.mark.parametrize(("kind", "hint"), [("torch", True), ("numba", False)])
def test_plugins_say_what_measures_large_tensors(run, folder, kind, hint):
    pytest.importorskip(kind)
    with kernels.using(kind):
        done, document = run("plugins"), run("plugins", "--json").document
    assert document["kernels"].startswith(f"{kind} ")
    assert f"large tensors are measured by {document['kernels']}" in done.err
    assert ("pip install 'fno-telemetry[fast]'" in done.err) == hint
