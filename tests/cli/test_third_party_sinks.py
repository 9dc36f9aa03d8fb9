"""Sinks of other packages, and missing ones: what becomes of the report, the others and the exit code."""

import json
import os
import sys
from pathlib import Path

import pytest

import fno_telemetry as ft

SINK = """
import os
from pathlib import Path
from fno_telemetry.errors import SinkUnavailable

ERRORS = {"error": RuntimeError("the disk of\\nothers is full"), "exit": SystemExit(0),
          "interrupt": KeyboardInterrupt(), "unavailable": SinkUnavailable("no licence: buy one")}

class Sink:
    name = "csv"

    def __init__(self):
        print("a sink prints")
        os.write(1, b"a sink prints\\n")
        self._fail("init")

    def open(self, run):
        self.folder = run.folder
        self._fail("open")

    def write(self, record):
        self._fail("write")
        (self.folder / "table.csv").write_text(str(len(record.modules)))

    def flush(self): pass

    def close(self, ok):
        self._fail("close")
        return ["less table.csv"] if ok else []

    def _fail(self, where):
        place, _, error = os.environ.get("CSV_FAILS", "").partition(":")
        if place == where:
            raise ERRORS[error]
"""


@pytest.fixture
def package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as pip would leave it, with a package that has a sink."""
    home = folder / "site"
    info = home / "csv_sink-1.dist-info"
    info.mkdir(parents=True)
    (home / "csv_sink.py").write_text(SINK)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: csv-sink\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[fno_telemetry.sinks]\ncsv = csv_sink:Sink\nbroken = csv_sink:Absent\n"
    )
    monkeypatch.syspath_prepend(home)
    monkeypatch.delitem(sys.modules, "csv_sink", raising=False)
    return home


NETWORK = ("--model", "cli_networks:Plain")
LINE = ("capture", *NETWORK, "--input", "train.npz", "--output", "out", "--sink", "csv,tensorboard", "--json")


def test_an_installed_sink_is_used_by_its_name(spawn, package, folder):
    result = spawn(*LINE, PYTHONPATH=f"{package}{os.pathsep}{os.environ['PYTHONPATH']}")
    assert result.code == 0
    assert result.document["sinks"] == {"json": "ok", "csv": "ok", "tensorboard": "ok"}
    assert Path("out/table.csv").read_text() == "1"


def test_what_a_sink_says_of_how_to_look_is_printed(run, package):
    assert "  less table.csv\n" in run(*LINE[:-1]).err


@pytest.mark.parametrize("place", ["open", "write", "close"])
@pytest.mark.parametrize(("error", "reason"), [("error", "RuntimeError"), ("exit", "SystemExit")])
@pytest.mark.parametrize("strict", [(), ("--strict",)])
def test_a_failing_sink_costs_neither_the_report_nor_the_others(
    run, package, monkeypatch, place, error, reason, strict
):
    monkeypatch.setenv("CSV_FAILS", f"{place}:{error}")
    result = run(*LINE, *strict)
    assert result.code == 3
    sinks = result.document["sinks"]
    assert (sinks["json"], sinks["tensorboard"]) == ("ok", "ok")
    assert sinks["csv"].startswith(reason)
    [line] = [line for line in result.err.splitlines() if line.startswith("fno-telemetry: ")]
    assert line.startswith(f"fno-telemetry: the csv sink failed, the report is written: {reason}")
    assert ft.load_report("out/activation_report.json").modules
    assert '"csv": "' + reason in Path("out/activation_report.log").read_text()


@pytest.mark.parametrize(
    ("fails", "sink", "words"),
    [
        ("init:error", "csv", ("The sink 'csv' cannot be made", "RuntimeError: the disk of others is full")),
        ("init:exit", "csv", ("The sink 'csv' cannot be made", "SystemExit")),
        ("init:unavailable", "csv", ("no licence: buy one",)),
        ("open:unavailable", "csv", ("no licence: buy one",)),
        ("", "broken", ("'broken'", "csv-sink", "Absent")),
    ],
)
def test_a_sink_that_cannot_be_had_is_refused_before_anything_is_written(
    run, package, monkeypatch, fails, sink, words
):
    monkeypatch.setenv("CSV_FAILS", fails)
    result = run("capture", "--input", "train.npz", "--output", "out", "--sink", sink, *NETWORK)
    assert (result.code, result.out) == (2, "")
    [line] = [line for line in result.err.splitlines() if line != "a sink prints"]
    assert [word for word in words if word not in line] == []
    assert not Path("out").exists()


def test_an_interrupt_within_a_sink_keeps_the_report_whole(run, package, monkeypatch):
    monkeypatch.setenv("CSV_FAILS", "write:interrupt")
    result = run(*LINE)
    assert result.code == 130
    assert json.loads(result.out)["error"] == "interrupted"
    assert ft.load_report("out/activation_report.json").modules
    assert [path.name for path in Path("out").iterdir()] == ["activation_report.json"]


def test_plugins_names_what_is_installed_and_what_it_lacks(run, package):
    result = run("plugins", "--json")
    found = {(entry["kind"], entry["name"]): entry for entry in result.document["plugins"]}
    assert found["sinks", "csv"] == {"kind": "sinks", "name": "csv", "origin": "csv-sink", "missing": None}
    assert "Absent" in found["sinks", "broken"]["missing"]
    assert found["sinks", "tensorboard"]["origin"] == "built in"
    assert {kind for kind, _ in found} == {"sinks", "statistics", "architectures", "rules"}


def test_a_missing_package_is_named_with_the_pip_line_before_the_model_runs(run, folder, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    line = ("capture", "--input", "train.npz", "--output", "out", "--model", "cli_networks:Raising")
    for result in (run(*line, "--sink", "json,tensorboard"), run("view", "--tensorboard", "out")):
        assert result.code == 2
        assert result.err.startswith("fno-telemetry: ")
        assert result.err.endswith("pip install 'fno-telemetry[tensorboard]'.\n")
        assert result.err.count("\n") == 1
    assert not Path("out").exists()
