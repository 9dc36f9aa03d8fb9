"""A run that collapses: captured into all three sinks by one command, read back, and its break found."""

import html
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import fno_telemetry as ft
import train_until_collapse
from fno_telemetry import keys
from fno_telemetry.findings import (
    SEVERITIES,
    count_causes_by_key,
    describe_counts,
    group_by_cause,
    select_new,
)
from support import ready_python, tensorboard_serving, wandb_surroundings
from support import wandb_log as log

serving = tensorboard_serving.serving
environment = wandb_surroundings.environment

STEPS = list(range(0, train_until_collapse.LAST + 1, train_until_collapse.CHECKPOINT_EVERY))
FIRST_BROKEN = next(step for step in STEPS if step > train_until_collapse.SPIKE)


@pytest.fixture(scope="module")
def collapse(tmp_path_factory) -> Iterator[SimpleNamespace]:
    """The folder of a capture of every checkpoint, the losses, and how the command ended."""
    folder = tmp_path_factory.mktemp("collapse")
    checkpoints, home = folder / "checkpoints", folder / "home"
    checkpoints.mkdir(), home.mkdir()
    rows, columns = np.mgrid[:16, :16] / 16
    rng = np.random.default_rng(0)
    waves = [1 + np.cos(2 * np.pi * (k * rows + columns)) + 0.3 * rng.random((16, 16)) for k in range(6)]
    amplitudes = np.stack(waves).astype(np.float32)
    np.savez(folder / "train.npz", diffraction=amplitudes)
    losses = train_until_collapse.train(torch.from_numpy(amplitudes).unsqueeze(1), checkpoints)
    line = ["capture", "--input", "train.npz", "--output", "out", "--checkpoint", "checkpoints/*.ckpt"]
    line += ["--batch-size", "3", "--sink", "json,tensorboard,wandb", "--detail", "full"]
    done = call(folder, *line, "--json", "--diagnose")
    yield SimpleNamespace(folder=folder, losses=losses, done=done)


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Call the command in a process of its own, which ends W&B's writing as well."""
    return subprocess.run(
        [ready_python.python(), "-m", "fno_telemetry_cli", *arguments],
        cwd=folder,
        env={**environment(folder / "home"), "OMP_NUM_THREADS": "1", "TERM": os.environ.get("TERM", "dumb")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def records(collapse) -> list[ft.CaptureRecord]:
    return [ft.load_report(collapse.folder / "out" / f"activation_report.step{s}.json") for s in STEPS]


@pytest.fixture(scope="module")
def get(collapse) -> Iterator[Callable[..., Any]]:
    """Asks the real TensorBoard server, which shows the last step."""

    def are_all_there(get: Callable[..., Any]) -> bool:
        last = [
            get("plugin/text/text", run="out", tag=f"{tag}/text_summary") for tag in ("report", "findings")
        ]
        return all(texts[-1]["step"] == STEPS[-1] for texts in last)

    with serving(collapse.folder / "out" / "tensorboard", are_all_there) as get:
        yield get


@pytest.fixture(scope="module")
def findings(collapse) -> list[dict[str, Any]]:
    """The findings that `diagnose --json` prints of the reports."""
    result = call(collapse.folder, "diagnose", "out", "--json")
    assert result.returncode == 1
    found: list[dict[str, Any]] = json.loads(result.stdout)["findings"]
    return found


def numbers(record: ft.CaptureRecord) -> dict[str, float]:
    """Every defined number of a record by the key that dashboards use."""
    entries = [(keys.record_place(entry), entry.stats) for entry in (*record.modules, *record.blocks)]
    entries += [("input", record.input.stats), ("output", record.output.stats)]
    return {
        keys.at(name, place): value
        for place, stats in entries
        for name, value in stats.items()
        if value is not None
    }


def test_the_run_learns_and_collapses_at_the_spike(collapse):
    assert collapse.losses[30] < 0.2 * collapse.losses[0]
    assert collapse.losses[FIRST_BROKEN] > 100 * collapse.losses[0]


def test_one_command_fills_all_three_sinks(collapse):
    assert collapse.done.returncode == 0, collapse.done.stderr
    document = json.loads(collapse.done.stdout)
    assert document["sinks"] == {"json": "ok", "tensorboard": "ok", "wandb": "ok"}
    assert [report["step"] for report in document["reports"]] == STEPS


def test_tensorboards_server_shows_the_reports_numbers_at_every_step(records, get):
    expected = [numbers(record) for record in records]
    tags = ["rms/lifter", "sample_variation/output", "spectral_share/fno_blocks/2", "p05/input"]
    tags += ["low_frequency_fraction/fno_blocks/1/spectral", "zero_fraction/cnn_refiner/0/1"]
    assert get("runs") == ["out"]
    counts = {f"findings/{severity}" for severity in SEVERITIES}
    assert set(get("plugin/scalars/tags")["out"]) == {key for each in expected for key in each} | counts
    for tag in tags:
        points = get("plugin/scalars/scalars", run="out", tag=tag)
        assert [step for _, step, _ in points] == STEPS
        assert [value for _, _, value in points] == [np.float32(each[tag]) for each in expected]
    for record in records:
        points = get("plugin/histograms/histograms", run="out", tag="log_histogram/fno_blocks/0")
        bins_at = {step: [int(count) for _, _, count in bins] for _, step, bins in points}
        found = record.module("fno_blocks.0").log_histogram.counts
        filled = [index for index, count in enumerate(found) if count]
        assert bins_at[record.step] == list(found[filled[0] : filled[-1] + 1])


def test_wandbs_transaction_log_holds_the_reports_numbers(collapse, records):
    [run] = (collapse.folder / "out" / "wandb").glob("offline-run-*")
    rows = log.read_rows(run)
    assert [row["checkpoint_step"] for row in rows] == STEPS
    for row, record in zip(rows, records, strict=True):
        for key, value in numbers(record).items():
            assert row[key] == value, key
        found = record.module("fno_blocks.0").log_histogram.counts
        filled = [index for index, count in enumerate(found) if count]
        counts = row["log_histogram/fno_blocks/0.values"]
        assert counts == list(found[filled[0] : filled[-1] + 1])


def test_compare_names_the_step_where_it_broke_and_exits_1(collapse):
    result = call(collapse.folder, "compare", "out", "--json")
    assert result.returncode == 1
    document = json.loads(result.stdout)
    assert document["break_step"] == FIRST_BROKEN
    assert document["worse"] is True
    assert document["series"]["steps"] == STEPS
    assert document["first_diverging"].startswith("lifter")
    told = call(collapse.folder, "compare", "out")
    assert told.stdout.startswith(f"broke at step {FIRST_BROKEN}: ")


def test_the_healthy_part_of_the_run_is_not_worse(collapse):
    healthy = [
        f"out/activation_report.step{step}.json" for step in STEPS if step <= train_until_collapse.SPIKE
    ]
    result = call(collapse.folder, "compare", *healthy, "--json")
    assert (result.returncode, json.loads(result.stdout)["break_step"]) == (0, None)


def test_a_report_against_itself_exits_0(collapse):
    report = "out/activation_report.step40.json"
    result = call(collapse.folder, "compare", report, report, "--json")
    document = json.loads(result.stdout)
    assert (result.returncode, document["worse"], document["first_diverging"]) == (0, False, None)


def test_the_checkpoints_alone_tell_the_same(collapse):
    line = [f"checkpoints/step={step}.ckpt" for step in (30, 40, 20)]
    result = call(collapse.folder, "compare", *line, "--input", "train.npz", "--json")
    assert result.returncode == 1
    assert json.loads(result.stdout)["break_step"] == FIRST_BROKEN


def test_diagnose_names_the_step_and_where_it_began(records, findings):
    first = findings[0]
    assert (first["rule"], first["severity"], first["step"]) == ("collapse_at_step", "error", FIRST_BROKEN)
    # By hand: the first layer in execution order, and the first block, whose size left the scales of before.
    at = STEPS.index(FIRST_BROKEN)
    before, after = records[at - 1], records[at]
    sizes = [entry.stats["rms"] for entry in (before.input, *before.modules) if entry.stats["rms"]]
    old = {module.name: module.stats["rms"] for module in before.modules}
    grown = [
        module.name
        for module in sorted(after.modules, key=lambda module: module.order)
        if module.stats["rms"] >= 10 * old[module.name] and module.stats["rms"] > max(sizes)
    ]
    blocks = [block.name for block in after.blocks if any(name.startswith(block.name) for name in grown)]
    assert first["layer"] == grown[0]
    assert first["evidence"]["first_block"] == blocks[0]


def test_diagnose_says_nothing_of_the_healthy_part(collapse):
    healthy = [
        f"out/activation_report.step{step}.json" for step in STEPS if step <= train_until_collapse.SPIKE
    ]
    assert call(collapse.folder, "diagnose", *healthy).returncode == 0


def in_words(finding: ft.Finding) -> tuple[str, ...]:
    """What a reader must find of a finding, word for word, wherever it is shown."""
    return (finding.severity, finding.where, finding.message, finding.rule, finding.advice)


def test_the_break_is_in_every_dashboard_at_its_step_in_the_words_of_the_terminal(collapse, records, get):
    broken = records[STEPS.index(FIRST_BROKEN)]
    [first] = [finding for finding in broken.findings if finding.rule == "collapse_at_step"]
    assert first == broken.findings[0]
    assert (first.step, first.severity) == (FIRST_BROKEN, "error")
    told = call(collapse.folder, "diagnose", "out", "--fail-on", "never")
    terminal = " ".join(told.stdout.split())
    assert all(" ".join(part.split()) in terminal for part in in_words(first))
    counts = [count_causes_by_key(record) for record in records]
    errors = [each["findings/error"] for each in counts]
    assert errors.index(1) == STEPS.index(FIRST_BROKEN)
    # Each is counted at the step at which it appeared, and as often as the terminal says.
    assert describe_counts(chain.from_iterable(map(select_new, records))) in terminal
    for name in SEVERITIES:
        points = get("plugin/scalars/scalars", run="out", tag=f"findings/{name}")
        assert [(step, value) for _, step, value in points] == [
            (step, each[f"findings/{name}"]) for step, each in zip(STEPS, counts, strict=True)
        ]
    texts = get("plugin/text/text", run="out", tag="findings/text_summary")
    [text] = [html.unescape(each["text"]) for each in texts if each["step"] == FIRST_BROKEN]
    shown = " ".join(re.sub("<[^>]*>", " ", text).split())
    assert all(part in shown for part in in_words(first))

    [run] = (collapse.folder / "out" / "wandb").glob("offline-run-*")
    for row, each in zip(log.read_rows(run)[: len(STEPS)], counts, strict=True):
        assert {key: row[key] for key in each} == each
    [file] = (run / "files" / "media" / "table" / "findings").glob("table_*.json")
    table = json.loads(file.read_text(encoding="utf-8"))
    listed = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert len(listed) == sum(len(record.findings) for record in records)
    [entry] = [row for row in listed if row["rule"] == "collapse_at_step"]
    assert entry["step"] == FIRST_BROKEN
    assert tuple(entry[key] for key in ("severity", "layer", "message", "rule", "advice")) == in_words(first)


def test_what_the_reports_hold_is_what_diagnose_prints(records, findings):
    found = findings
    stored = [finding for record in records for finding in record.findings]
    assert {finding.id for finding in stored} == {each["id"] for each in found}
    for each in found:
        [finding] = [one for one in stored if one.id == each["id"]]
        assert (finding.message, finding.advice, finding.follows_from, finding.step) == tuple(
            each[key] for key in ("message", "advice", "follows_from", "step")
        )
    causes = [cause.finding.id for cause in group_by_cause(stored) if cause.finding.follows_from is None]
    assert set(causes) == {each["id"] for each in found if each["follows_from"] is None}
