"""neuraloperator's models and checkpoints on the command line."""

from pathlib import Path

import pytest
import torch

import fno_telemetry as ft
from fno_telemetry import sources

pytest.importorskip("neuralop", reason="neuraloperator is not installed")

FNO = ("--model", "neuralop.models:FNO")
FNO += ("--set", "n_modes=[8,8]", "--set", "in_channels=1", "--set", "out_channels=1")
FNO += ("--set", "hidden_channels=8", "--set", "n_layers=2")
GINO = ("--batches", "cli_operators:points", "--model", "neuralop.models:GINO")
GINO += ("--set", "in_channels=1", "--set", "out_channels=1", "--set", "fno_n_modes=[4,4]")
GINO += ("--set", "fno_hidden_channels=8", "--set", "fno_n_layers=2", "--set", "gno_coord_dim=2")
GINO += ("--set", "projection_channel_ratio=1", "--set", "gno_use_open3d=false")
GINO += ("--set", "gno_use_torch_scatter=false", "--set", "in_gno_radius=0.3", "--set", "out_gno_radius=0.3")
CODANO = ("--batches", "cli_operators:functions", "--model", "neuralop.models:CODANO")
CODANO += ("--set", "n_layers=2", "--set", "n_modes=[[4,4],[4,4]]", "--set", "n_heads=[1,1]")
CODANO += ("--set", "attention_scaling_factors=[1,1]", "--set", "per_layer_scaling_factors=[[1,1],[1,1]]")
CODANO += ("--set", 'variable_ids=["a","b"]', "--set", "lifting_channels=4")
CODANO += ("--set", "hidden_variable_codimension=2")
PAIRS = {"FNO": 2, "GINO": 2, "CODANO": 10}
LINES = {"FNO": ("--input", "train.npz", *FNO), "GINO": GINO, "CODANO": CODANO}


def network_of_modes(modes: int) -> torch.nn.Module:
    from neuralop import models

    return models.FNO(n_modes=(modes, modes), in_channels=1, out_channels=1, hidden_channels=8, n_layers=2)


@pytest.mark.parametrize("name", LINES)
def test_a_model_is_captured_by_its_path_and_stdout_stays_clean(spawn, name):
    # In a process of its own, as what the libraries print and warn about on import is part of it.
    result = spawn("capture", *LINES[name], "--output", "out", "--json")
    assert result.code == 0, result.err
    assert result.document["reports"][0]["summary"]["architecture"] == name
    record = ft.load_report("out/activation_report.json")
    assert len(record.blocks) == PAIRS[name]
    assert all(block.stats["spectral_share"] is not None for block in record.blocks)


@pytest.mark.parametrize("name", LINES)
def test_map_says_what_is_spectral(run, folder, name):
    result = run("map", *LINES[name], "--json")
    assert result.code == 0
    spectral = [m for m in result.document["modules"] if m["role"] == "spectral"]
    assert len(spectral) == PAIRS[name]
    assert {m["class"] for m in spectral} == {"SpectralConv"}
    assert all("Fourier transform and its inverse over axes 2, 3" in m["reason"] for m in spectral)


def test_its_checkpoints_are_read_without_trust(run, folder):
    network = network_of_modes(8)
    state = network.state_dict()
    # What its own save_checkpoint keeps beside the weights: the arguments, with functions among them.
    assert torch.nn.functional.gelu in state["_metadata"].values()
    torch.save(state, "model_state_dict.pt")
    line = ("capture", "--input", "train.npz", *FNO, "--checkpoint", "model_state_dict.pt")
    result = run(*line, "--output", "out", "--json")
    assert result.code == 0, result.err
    assert result.document["reports"][0]["summary"]["weights"] == "checkpoint"
    record = ft.load_report("out/activation_report.json")
    alone = ft.capture(network, sources.read_samples(Path("train.npz")).values)
    for module in record.modules:
        own = alone.module(module.name, module.call, module.item).stats
        assert module.stats["rms"] == pytest.approx(own["rms"], rel=1e-5)


def test_a_checkpoint_of_other_modes_is_refused_in_one_line(run, folder):
    torch.save(network_of_modes(4).state_dict(), "other.pt")
    line = ("capture", "--input", "train.npz", *FNO, "--checkpoint", "other.pt", "--output", "out")
    result = run(*line)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert "convs.0.weight" in result.err
    assert not Path("out").exists()
