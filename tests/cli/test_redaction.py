"""`--redact`: a report that can be passed on."""

import json
import re
from pathlib import Path

import pytest
import torch

import fno_telemetry as ft
from fno_telemetry import plugins
from fno_telemetry.records import FrozenMapping
from fno_telemetry_cli.capturing.redaction import redact_findings


@pytest.fixture
def home(folder: Path) -> Path:
    """A folder whose name must not appear in a report, with a checkpoint that draws a warning in it."""
    home = folder / "home of ursula"
    home.mkdir()
    (folder / "train.npz").rename(home / "train.npz")
    network = plugins.load("architectures", "fno").build(hidden_channels=4, modes=3, C=1)
    torch.save(network.state_dict(), home / "model.pt")
    return home


def texts(value):
    if isinstance(value, dict):
        for key, part in value.items():
            yield key
            yield from texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from texts(part)
    elif isinstance(value, str):
        yield value


def lines_with_a_path(report: Path) -> list[str]:
    document = json.loads(report.read_text())
    keys = set(document["layers"])  # `lifter/mean` is the name of a statistic
    found = re.compile(r"ursula|train\.npz|model\.pt|c\.toml|(^|[^<\w])/\w|[A-Z]:\\|~/")
    return [text for text in texts(document) if text not in keys and found.search(text)]


def test_no_path_is_left_in_the_report_and_no_log_beside_it(run, home):
    line = ("--input", home / "train.npz", "--checkpoint", home / "model.pt", "--output", home / "out")
    assert run("capture", *line).code == 0
    report, log = home / "out" / "activation_report.json", home / "out" / "activation_report.log"
    assert lines_with_a_path(report)
    assert log.is_file()
    assert run("capture", *line, "--force", "--redact", "--sink", "tensorboard").code == 0
    assert lines_with_a_path(report) == []
    assert not log.exists()
    record = ft.load_report(report)
    assert len(record.warnings) == 1
    assert record.warnings[0].startswith("<path> does not say its input_transform")
    assert len(record.provenance["checkpoint"]["sha256"]) == 64
    assert set(record.provenance["input"]) == {"shape", "digest", "key", "axes", "stored", "checksums"}
    assert "command" not in record.provenance


def test_relative_paths_go_too_and_other_words_stay(run, folder):
    Path("x").mkdir()
    Path("train.npz").rename("x/f")
    line = ("--input", "x/f", "--output", "out", "--redact", "--model", "cli_networks:with_path")
    assert run("capture", *line, "--set", 'weights="x/f"').code == 0
    record = ft.load_report("out/activation_report.json")
    assert record.provenance["arguments"] == {"weights": "<path>"}
    assert record.summary["weights"] == "as made by cli_networks:with_path, seed 0"
    assert record.module("conv").role == "other"


def test_paths_in_what_went_wrong_go_too(run, folder, monkeypatch):
    sink = Path("spying.py")
    sink.write_text(
        "from fno_telemetry.quantities import Quantity\n"
        "class Spy:\n"
        "    name, of, needs = 'spy', 'tensor', ()\n"
        "    quantities = (Quantity(name='spied', title='spied'),)\n"
        "    def measure(self, activation):\n"
        "        raise OSError('cannot read /home/ursula/spy.txt or ~/x')\n"
        "    def summarize(self, state, known):\n"
        "        raise AssertionError\n"
    )
    info = Path("spying-1.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: spying\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[fno_telemetry.statistics]\nspy = spying:Spy\n")
    monkeypatch.syspath_prepend(folder)
    line = ("capture", "--input", "train.npz", "--output", "out", "--model", "cli_networks:Plain")
    assert run(*line, "--redact").code == 0
    record = ft.load_report("out/activation_report.json")
    assert {entry["reason"] for entry in record.errors} == {"OSError: cannot read <path> or <path>"}


def test_a_finding_holds_no_path_whatever_a_rule_says():
    pathless = {"id": "a", "rule": "r", "severity": "note", "layer": None, "step": None, "report": None}
    finding = ft.Finding(
        **pathless,
        message="failed: FileNotFoundError: '/secret/table.csv' of home/train.npz",
        evidence=FrozenMapping({"file": "/secret/table.csv", "rms": 1.0}),
        advice="look into ~/rules",
    )
    [cleaned] = redact_findings([finding], [Path("home/train.npz"), None])
    assert cleaned.message == "failed: FileNotFoundError: '<path>' of <path>"
    assert dict(cleaned.evidence) == {"file": "<path>", "rms": 1.0}
    assert cleaned.advice == "look into <path>"
