"""`capture --diagnose`: what it finds is in the dashboards, and an alert where that is asked for."""

import json
from pathlib import Path

import pytest
import torch

import fno_telemetry as ft
from fno_telemetry import plugins
from support import wandb_surroundings

alone, server = wandb_surroundings.alone, wandb_surroundings.server


@pytest.fixture
def broken(run, folder, alone, tiny):
    """Capture a checkpoint whose weights are all zero."""
    network = plugins.load("architectures", "fno").build(
        hidden_channels=4, modes=3, fno_blocks=1, cnn_blocks=1, C=1
    )
    zeros = {name: torch.zeros_like(weight) for name, weight in network.state_dict().items()}
    torch.save({"state_dict": zeros, "global_step": 1000}, "model.ckpt")
    line = ("--input", "train.npz", "--checkpoint", "model.ckpt", "--set", "input_transform=none")
    return lambda *options: run("capture", *line, "--output", "run", "--force", *options)


def test_what_a_capture_finds_is_in_the_report_and_both_dashboards(broken, server, read_events):
    result = broken("--sink", "tensorboard,wandb", "--diagnose", "--wandb-alert")
    assert result.code == 0, result.err
    findings = ft.load_report("run/activation_report.json").findings
    causes = [finding for finding in findings if finding.follows_from is None]
    errors = sum(finding.severity == "error" for finding in causes)
    assert errors > 0
    events = read_events(Path("run/tensorboard/run"))
    assert events["findings/error"] == [(1000, errors)]
    [(_, text)] = events["findings/text_summary"]
    assert b"- **error: " in text.string_val[0]
    [online] = server.runs.values()
    assert online.rows[0]["findings/error"] == errors
    table = json.loads(online.files[online.summary["findings/table"]["path"]])
    assert len(table["data"]) == len(findings)
    assert [each["severity"] for each in server.alerts] == ["ERROR"]
    assert server.unknown == []


def test_without_diagnose_the_dashboards_say_nothing_of_findings(broken, server, read_events):
    assert broken("--sink", "tensorboard,wandb").code == 0
    assert not [tag for tag in read_events(Path("run/tensorboard/run")) if tag.startswith("findings")]
    [online] = server.runs.values()
    assert not [key for each in online.rows for key in each if key.startswith("findings")]
    assert server.alerts == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--sink", "wandb", "--wandb-alert"), "--wandb-alert sends what --diagnose finds; add --diagnose"),
        (("--diagnose", "--wandb-alert"), "--wandb-alert is for the wandb sink; add --sink wandb"),
    ],
)
def test_an_alert_of_nothing_is_refused_before_anything_runs(broken, options, expected):
    result = broken(*options)
    assert (result.code, result.out) == (2, "")
    assert expected in result.err
    assert not Path("run").exists()
