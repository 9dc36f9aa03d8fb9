"""Plug-ins: what is built in, what other packages install, and what is missing to use them."""

import importlib
import importlib.util
import subprocess
import sys

import pytest
import torch
from torch import nn

import fno_telemetry as ft
from fno_telemetry import plugins

STATISTIC = """
from fno_telemetry.quantities import Quantity
from fno_telemetry.statistics.contract import Summary

class Largest:
    name, of, needs = "largest", "tensor", ()
    quantities = (Quantity(name="largest_magnitude", title="largest |x|", unit="x"),)

    def measure(self, activation):
        return State(activation.values.abs().max())

    def summarize(self, state, known):
        return Summary({"largest_magnitude": float(state.value)})

class State:
    def __init__(self, value):
        self.value = value

    def merge(self, other):
        return State(max(self.value, other.value))
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a package with these modules and entry points, as far as Python can tell."""

    def install(entries, **modules):
        for name, source in modules.items():
            (tmp_path / f"{name}.py").write_text(source)
        info = tmp_path / "other_package-2.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-package\nVersion: 2.0\n")
        lines = [line for kind, entry in entries for line in (f"[fno_telemetry.{kind}]", entry)]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()
        for name in modules:
            monkeypatch.delitem(sys.modules, name, raising=False)

    return install


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_every_built_in_name_can_be_loaded(kind):
    assert list(plugins.KINDS[kind]) == plugins.names(kind)[: len(plugins.KINDS[kind])]
    for name in plugins.KINDS[kind]:
        if importlib.util.find_spec(name) is not None or name not in ("tensorboard", "wandb"):
            loaded = plugins.load(kind, name)
            assert getattr(loaded, "name", name) == name


def test_the_names_that_users_type_are_there():
    assert {"json", "tensorboard"} <= set(plugins.names("sinks"))
    assert plugins.names("architectures")[:4] == ["fno", "hybrid", "stable_hybrid", "fno_vanilla"]
    assert {"values", "channels", "samples", "spectrum"} <= set(plugins.names("statistics"))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "sinks",
            r"No sink is called 'tensorbord'\. Did you mean tensorboard\? Known: json, history, tensorboard",
        ),
        (
            "statistics",
            r"No statistic is called 'tensorbord'\. Known: values, channels, samples, zero_samples",
        ),
        ("architectures", r"No architecture is called 'tensorbord'\. Known: fno, hybrid, stable_hybrid"),
    ],
)
def test_an_unknown_name_is_an_error_that_lists_what_there_is(kind, message):
    with pytest.raises(ft.PluginNotFound, match=message) as caught:
        plugins.load(kind, "tensorbord")
    assert "\n" not in str(caught.value)


def test_an_installed_statistic_takes_part_in_every_capture(installed):
    installed([("statistics", "largest = other_statistic:Largest")], other_statistic=STATISTIC)
    assert plugins.names("statistics")[-1] == "largest"
    x = torch.arange(6.0).reshape(3, 2) - 4
    record = ft.capture(nn.Sequential(nn.Identity()), list(x.split(2)))
    assert record.module("0").stats["largest_magnitude"] == 4.0
    assert record.errors == ()
    found = [plugin for plugin in ft.list_plugins() if plugin.name == "largest"]
    assert [(p.kind, p.origin, p.missing) for p in found] == [("statistics", "other-package", None)]
    with pytest.raises(ft.PluginNotFound, match=r"Known: .*largest"):
        plugins.load("statistics", "nothing")


def test_a_built_in_name_cannot_be_taken_over(installed):
    installed([("sinks", "json = other_sink:Spy")], other_sink="raise SystemExit('imported')")
    assert plugins.load("sinks", "json") is ft.JsonFile
    assert plugins.names("sinks").count("json") == 1
    assert [p.origin for p in ft.list_plugins() if p.name == "json"] == ["built in"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import a_package_nobody_has", "ModuleNotFoundError: No module named 'a_package_nobody_has'"),
        ("x = 1", "AttributeError: module 'broken_sink' has no attribute 'Sink'"),
        ("raise ValueError('two\\nlines')", "ValueError: two lines"),
        ("raise SystemExit('at import')", "SystemExit: at import"),
    ],
)
def test_a_broken_plug_in_is_listed_with_what_is_missing(source, reason, installed):
    installed([("sinks", "broken = broken_sink:Sink")], broken_sink=source)
    message = f"'broken' is installed by other-package but cannot be imported: {reason}"
    with pytest.raises(ft.PluginNotFound) as caught:
        plugins.load("sinks", "broken")
    assert str(caught.value) == message
    listed = {plugin.name: plugin for plugin in ft.list_plugins()}
    assert (listed["broken"].missing, listed["broken"].origin) == (message, "other-package")
    assert listed["json"].missing is None


@pytest.mark.parametrize("source", ["x = 1", "def Nothing(): raise ValueError('no settings')"])
def test_a_broken_statistic_is_left_out_and_told(source, installed, images):
    model = nn.Sequential(nn.Flatten())
    expected = ft.capture(model, images)
    installed([("statistics", "broken = broken_statistic:Nothing")], broken_statistic=source)
    record = ft.capture(model, images, warnings=["mine"])
    assert record.modules == expected.modules
    assert record.warnings[0] == "mine"
    assert record.warnings[1].startswith("the statistic 'broken' is left out: ")
    assert len(record.warnings) == 2


def test_every_plug_in_is_listed_once_with_what_is_missing():
    listed = ft.list_plugins()
    for kind, table in plugins.KINDS.items():
        assert [p.name for p in listed if p.kind == kind and p.origin == "built in"] == list(table)
    for plugin in listed:
        if plugin.name == "tensorboard":
            found = importlib.util.find_spec("tensorboard") is not None
            assert plugin.missing == (None if found else "pip install 'fno-telemetry[tensorboard]'")


def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    missing = {p.name: p.missing for p in ft.list_plugins() if p.kind == "sinks" and p.origin == "built in"}
    assert missing["json"] is None
    assert missing["tensorboard"] == "pip install 'fno-telemetry[tensorboard]'"


def test_listing_imports_no_built_in_plug_in():
    program = (
        "import sys, fno_telemetry; fno_telemetry.list_plugins(); "
        "print([name for name in ('torch', 'tensorboard', 'wandb') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
