"""Names and texts of files and models: shown without what a terminal would obey, or a reader not see."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import fno_telemetry as ft
from fno_telemetry import report
from fno_telemetry.records import freeze_mapping
from fno_telemetry.testing import example_record
from support.hostile_text import EVIL, make_evil_reports, shows_only_what_is_seen


@pytest.fixture
def evil(folder) -> list[Path]:
    """Two reports with the signs in every text; the second is worse, and has a module more."""
    paths = [Path("evil.json"), Path("more\u202e\nevil.json")]
    for path, document in zip(paths, make_evil_reports(), strict=True):
        path.write_text(json.dumps(document))
    return paths


@pytest.mark.parametrize(
    "line",
    [
        ("view", 0),
        ("view", 1),
        ("view", "."),
        ("compare", 0, 1),
        ("compare", 0, 1, "--all"),
        ("compare", 0, 1, "--group"),
        ("diagnose", 0),
        ("diagnose", 0, 1),
        ("diagnose", "--baseline", 0, 1),
    ],
    ids=lambda line: " ".join(map(str, line)),
)
@pytest.mark.parametrize("columns", ["60", "200"])
def test_no_text_of_a_report_reaches_the_terminal_as_it_is(run, evil, monkeypatch, line, columns):
    monkeypatch.setenv("COLUMNS", columns)
    result = run(*(evil[part] if isinstance(part, int) else part for part in line))
    assert result.code in (0, 1), result.err
    assert "evil" in result.out
    assert shows_only_what_is_seen(result.out), ascii(result.out)
    assert shows_only_what_is_seen(result.err), ascii(result.err)


def test_a_report_and_its_entries_read_as_printable_text(evil):
    record = ft.load_report(evil[1])
    for entry in (record, *record.modules, *record.blocks, record.input, *record.outputs):
        assert shows_only_what_is_seen(repr(entry)), ascii(repr(entry))
    assert shows_only_what_is_seen(str(ft.compare(ft.load_report(evil[0]), record)))
    assert all(shows_only_what_is_seen(str(found)) for found in record.findings or ())
    with pytest.raises(ft.TelemetryError) as raised:
        record.module(EVIL + "?")
    assert shows_only_what_is_seen(str(raised.value))


class Evil(nn.Module):
    """A small operator whose modules have names that nobody should see."""

    def __init__(self) -> None:
        super().__init__()
        for part in ("lift", "project"):
            kind = type(f"{part}{EVIL}".replace("\ud83d", "").replace("\0", ""), (nn.Conv2d,), {})
            self.add_module(f"{part}{EVIL.replace('.', '')}", kind(1, 1, 1))
        self.add_module(f"spare{EVIL}", nn.Linear(1, 1))

    def forward(self, x):
        first, second, _ = self.children()
        return second(torch.fft.irfft2(torch.fft.rfft2(first(x)), s=x.shape[-2:]))


class Raising(nn.Module):
    def forward(self, x):
        raise ValueError(EVIL)


def test_names_of_a_models_own_modules_are_shown_printable(run, folder):
    line = ("--input", "train.npz", "--model", f"{__name__}:Evil")
    for arguments in (
        ("map", *line, "--output", "map.toml"),
        ("map", *line, "--map", "map.toml"),
        ("capture", *line, "--output", "out", "--dry-run"),
        ("capture", *line, "--output", "out", "--diagnose"),
        ("view", "out"),
    ):
        result = run(*arguments)
        assert result.code == 0, result.err
        assert "evil" in result.out + result.err
        assert shows_only_what_is_seen(result.out + result.err), ascii(result.out + result.err)
    assert shows_only_what_is_seen(Path("map.toml").read_text())
    assert shows_only_what_is_seen(Path("out/activation_report.log").read_text())


def test_what_a_model_raises_is_shown_printable(run, folder):
    result = run("capture", "--input", "train.npz", "--model", f"{__name__}:Raising", "--output", "out")
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert "evil" in result.err
    assert shows_only_what_is_seen(result.err)


def test_a_name_of_a_report_without_a_step_is_shown_printable(run, folder):
    for name in ("a\u202e\nfno-telemetry: all well.json", "b.json"):
        record = example_record.with_stats(example_record.example(), "lifter", rms=0.0, nan_count=2)
        report.write(replace(record, summary=freeze_mapping({})), name)
    result = run("diagnose", "a\u202e\nfno-telemetry: all well.json", "b.json")
    assert "at a??fno-telemetry: all well.json" in result.out
    assert shows_only_what_is_seen(result.out + result.err), ascii(result.out + result.err)


@pytest.mark.parametrize("line", [("view",), ("compare", "--allow-different-input"), ("diagnose",)])
def test_a_name_of_a_file_is_shown_printable(run, folder, line):
    name = os.fsdecode(f"a{EVIL.replace(chr(0), '').replace('/', '').replace(chr(0xD83D), '')}.json".encode())
    Path(name).write_text("{")
    result = run(*line, name, *([name] if line[0] == "compare" else []))
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert "evil" in result.err
    assert shows_only_what_is_seen(result.err)
