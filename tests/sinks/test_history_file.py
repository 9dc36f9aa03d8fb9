"""The history of a run: appended to, torn by kills, rotated, written by several processes."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

import fno_telemetry as ft
from fno_telemetry import keys, plugins
from fno_telemetry.records import CaptureRecord, FrozenMapping, Histogram, freeze_mapping
from fno_telemetry.report import history_lines
from fno_telemetry.sinks.contract import RunContext

_MOST_BYTES_PER_CALL = 3_000
"""docs/report.md"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "history.jsonl"


@pytest.fixture
def small(record: CaptureRecord) -> CaptureRecord:
    """A record whose line is short."""
    return replace(record, modules=record.modules[:1], blocks=(), input=None, output=None, outputs=())


@pytest.fixture
def shortest(small: CaptureRecord) -> CaptureRecord:
    """A record whose line has text, tables and numbers, but few: for what is tried at each of its bytes."""
    stats = freeze_mapping(dict(list(small.modules[0].stats.items())[:6]))
    module = replace(
        small.modules[0], stats=stats, histogram=None, log_histogram=None, spectrum=None, sketch=None
    )
    return replace(small, modules=(module,), parameters=(), target=None, accuracy=None)


def steps_of(path: Path) -> list[int | None]:
    return [record.step for record in ft.load_history(path)]


def test_a_path_is_enough_and_each_record_is_a_line_of_strict_json(path, record, examples):
    history = ft.HistoryFile(path)
    for step in (0, 100):
        history.write(examples.at_step(record, step))
    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    for line, step in zip(lines, (0, 100), strict=True):
        document = json.loads(line, parse_constant=pytest.fail)
        assert document["schema"] == "fno-telemetry-history/1"
        assert document["summary"]["checkpoint_step"] == step
    assert steps_of(path) == [0, 100]
    assert history.close(ok=True) == [f"fno-telemetry diagnose {path}"]


def test_the_run_says_where_and_nothing_is_there_before_the_first_record(tmp_path, small):
    history = ft.HistoryFile()
    history.open(RunContext(tmp_path / "out"))
    assert history.close(ok=True) == []
    assert list(tmp_path.iterdir()) == []
    history.open(RunContext(tmp_path / "out"))
    history.write(small)
    assert history.close(ok=True) == [f"fno-telemetry view {tmp_path}/out/history.jsonl"]
    assert list(ft.HistoryFile().read_back(tmp_path / "out")) == [1000]
    assert ft.HistoryFile().read_back(tmp_path) == {}


def test_without_path_and_run_writing_is_refused(record):
    with pytest.raises(ft.ReportError, match=r"HistoryFile\(path\)"):
        ft.HistoryFile().write(record)


def test_a_file_torn_at_any_byte_loses_its_last_line_alone(path, shortest, examples):
    for step in (0, 100):
        ft.HistoryFile(path).write(examples.at_step(shortest, step))
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole)):
        path.write_bytes(whole[:length])
        # The line is whole where the line break alone is missing.
        kept = [0, 100] if length == len(whole) - 1 else [0]
        assert steps_of(path) == kept
        ft.HistoryFile(path).write(examples.at_step(shortest, 200))
        assert steps_of(path) == [*kept, 200]
        assert path.read_bytes().startswith(whole[:first])


def test_a_first_line_torn_at_any_byte_is_replaced(path, shortest):
    ft.HistoryFile(path).write(shortest)
    whole = path.read_bytes()
    assert len(whole) < 1_200 and not whole.isascii()
    for length in range(len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ft.ReportError, match=r"no whole record in this history$"):
            ft.load_history(path)
        ft.HistoryFile(path).write(shortest)
        assert path.read_bytes() == whole


def test_after_a_restart_later_lines_win_and_steps_that_did_not_run_again_stay(path, small, examples):
    for step, value in ((0, 1.0), (100, 2.0), (200, 3.0), (300, 4.0), (100, 5.0), (200, 6.0)):
        ft.HistoryFile(path).write(examples.with_stats(examples.at_step(small, step), "lifter", rms=value))
    found = {record.step: record.module("lifter").stats["rms"] for record in ft.load_history(path)}
    assert found == {0: 1.0, 100: 5.0, 200: 6.0, 300: 4.0}
    assert list(found) == [0, 100, 200, 300]


def test_a_validation_has_steps_and_keys_of_its_own(path, small, examples):
    validation = replace(small, training=freeze_mapping({"stage": "val"}))
    for record in (small, validation):
        ft.HistoryFile(path).write(record)
    assert [record.stage for record in ft.load_history(path)] == ["train", "val"]
    [numbers] = ft.HistoryFile(path).read_back(path).values()
    assert numbers.keys() == {key for key, _ in (*keys.numbers(small), *keys.numbers(validation))}
    assert {"rms/lifter", "val/rms/lifter", "relative_l2/accuracy", "val/moved/lifter/weight"} <= set(numbers)


def test_records_without_a_step_are_all_kept_and_come_first(path, small, examples):
    for step in (5, None, 0, None):
        ft.HistoryFile(path).write(examples.at_step(small, step))
    assert steps_of(path) == [None, None, 0, 5]


def test_a_full_file_is_followed_by_another_and_all_are_read_in_order(path, small, examples):
    size = len(history_lines.as_line(small))
    for step in range(7):
        ft.HistoryFile(path, rotate_mib=2.5 * size / 2**20).write(examples.at_step(small, step))
    files = [path, *(path.with_name(f"history.{number}.jsonl") for number in (1, 2, 3))]
    assert sorted(path.parent.iterdir()) == sorted(files)
    assert [file.read_bytes().count(b"\n") for file in files] == [2, 2, 2, 1]
    assert steps_of(path) == list(range(7))
    # Without the option the last file goes on.
    ft.HistoryFile(path).write(examples.at_step(small, 3))
    assert [record.step for record in ft.load_history(path)] == list(range(7))
    path.unlink()
    assert steps_of(path) == [2, 3, 4, 5, 6]
    # A file too small for one record has one.
    tiny = path.with_name("tiny.jsonl")
    for step in range(12):
        ft.HistoryFile(tiny, rotate_mib=1e-9).write(examples.at_step(small, step))
    assert steps_of(tiny) == list(range(12))
    assert tiny.with_name("tiny.11.jsonl").exists()


def test_a_torn_line_is_mended_before_the_next_file_begins(path, small, examples):
    for ending in (b"", b'{"schema":"fno'):
        ft.HistoryFile(path).write(small)
        path.write_bytes(path.read_bytes().rstrip(b"\n") + b"\n" * bool(ending) + ending)
        ft.HistoryFile(path, rotate_mib=1e-9).write(examples.at_step(small, 2000))
        assert path.read_bytes().endswith(b"}\n")
        assert steps_of(path) == [1000, 2000]
        for file in path.parent.iterdir():
            file.unlink()


@pytest.mark.parametrize("content", ["import torch\n", "{}", '{"schema": "fno-telemetry/1"}\n', "\n"])
def test_a_file_that_is_no_history_stays_as_it_is(path, small, content):
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(ft.ReportError, match=r"a file that is no history is there; choose another path"):
        ft.HistoryFile(path).write(small)
    assert path.read_text() == content


def test_a_disk_that_takes_a_part_of_a_line_keeps_the_history_as_it_was(path, small, monkeypatch):
    ft.HistoryFile(path).write(small)
    whole = path.read_bytes()
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:50]))
    with pytest.raises(ft.ReportError, match=r"cannot be written: only 50 of [\d,]+ bytes"):
        ft.HistoryFile(path).write(small)
    monkeypatch.undo()
    assert path.read_bytes() == whole


@pytest.mark.parametrize("kind", ["folder", "file in the way", "pipe"])
def test_a_path_that_cannot_be_written_is_an_error_in_one_line(tmp_path, small, kind):
    path = tmp_path / "history.jsonl"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_text("kept")
        path = path / "history.jsonl"
    with pytest.raises(ft.ReportError) as raised:
        ft.HistoryFile(path).write(small)
    assert str(raised.value).startswith(f"{path}: cannot be written: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("value", [0, -1, True, "1", float("nan")])
def test_a_size_that_no_file_can_have_is_refused(path, value):
    with pytest.raises(ft.OptionError, match="`rotate_mib`"):
        ft.HistoryFile(path, rotate_mib=value)


_WRITER = """
import sys
from fno_telemetry import HistoryFile
from fno_telemetry.testing import example_record
for step in range(int(sys.argv[2]), int(sys.argv[2]) + 20):
    HistoryFile(sys.argv[1]).write(example_record.at_step(example_record.example(), step))
"""


def test_processes_that_append_at_once_keep_all_lines_whole(path):
    commands = [[sys.executable, "-c", _WRITER, str(path), str(start)] for start in (0, 20, 40)]
    running = [subprocess.Popen(command) for command in commands]
    assert [each.wait(timeout=120) for each in running] == [0, 0, 0]
    assert steps_of(path) == list(range(60))
    assert path.read_bytes().count(b"\n") == 60


@pytest.mark.parametrize(("name", "size"), [("fno", 64), ("hybrid", 64), ("fno", 16)])
def test_a_step_of_a_network_takes_few_bytes_for_each_module_call(path, name, size):
    network = plugins.load("architectures", name).build(C=1)
    record = ft.capture(
        network,
        torch.randn(4, 1, size, size),
        step=100,
        loss=lambda output, batch: output.abs().square().mean(),
    )
    ft.HistoryFile(path).write(record)
    assert path.stat().st_size <= _MOST_BYTES_PER_CALL * len(record.modules)
    [read] = ft.load_history(path)
    assert read.step == 100
    assert dict(keys.numbers(read)) == pytest.approx(dict(keys.numbers(record)), rel=1e-6, abs=0)


def test_what_is_read_equals_the_record_but_for_the_last_digits_and_layers(
    path: Path, record: CaptureRecord, examples: ModuleType
) -> None:
    odd = examples.add_findings(
        replace(record, provenance=freeze_mapping({"input": "not utf-8: \udcff", "seconds": 1 / 3}))
    )
    odd = examples.with_stats(odd, "lifter", count=2**60 + 1, mean=float("nan"))
    ft.HistoryFile(path).write(odd)
    [read] = ft.load_history(path)
    assert read.layers == {}
    exact = ("summary", "training", "findings", "provenance", "warnings", "not_fired", "skipped", "errors")
    for name in (*exact, "schema", "quantities"):
        assert getattr(read, name) == getattr(odd, name)
    assert read.module("lifter").stats["count"] == 2**60 + 1
    assert read.module("lifter").stats["mean"] is None
    assert_alike(read, replace(odd, layers=FrozenMapping()))


def assert_alike(one: object, other: object) -> None:
    """Require that two records have the same parts, with counts alike and floats within 1e-6."""
    if isinstance(other, float) and not isinstance(one, type(None)):
        assert one == pytest.approx(other, rel=1e-6, abs=0)
    elif isinstance(other, float):
        assert other != other
    elif isinstance(other, tuple):
        assert isinstance(one, tuple)
        for mine, theirs in zip(one, other, strict=True):
            assert_alike(mine, theirs)
    elif isinstance(other, FrozenMapping):
        assert isinstance(one, FrozenMapping)
        assert list(one) == list(other)
        for key in other:
            assert_alike(one[key], other[key])
    elif hasattr(other, "__dataclass_fields__"):
        assert type(one) is type(other)
        for name in other.__dataclass_fields__:
            assert_alike(getattr(one, name), getattr(other, name))
    else:
        assert one == other
        assert type(one) is type(other)


@pytest.mark.parametrize(
    "edges",
    [
        (10_000.0, 10_000.0009765625, 10_000.001953125),
        (-1.0, 0.0, 2.0**-40),
        (-3.4e38, 0.0, 3.4e38),
        (0.0, 5e-324, 1.0),
        (0.0, 1e-45, 2.0**128),
        (0.0, 0.0, 0.0),
        (0.1, 0.2, 0.30000000000000004),
        (-2.0, -2.0, 2.0**52),
    ],
)
def test_edges_of_histograms_are_exact(path, record, edges):
    found = Histogram(edges, (1, 2), 3, 4)
    module = replace(record.modules[0], histogram=found)
    ft.HistoryFile(path).write(replace(record, modules=(module,)))
    [read] = ft.load_history(path)
    assert read.modules[0].histogram == found


def test_one_stage_can_be_read_alone(path, small, examples):
    history = ft.HistoryFile(path)
    for step, stage in ((0, "train"), (0, "val"), (5, "train")):
        history.write(replace(examples.at_step(small, step), training=freeze_mapping({"stage": stage})))
    for stage, steps in ((None, [0, 0, 5]), ("train", [0, 5]), ("val", [0])):
        assert [record.step for record in ft.load_history(path, stage)] == steps
    with pytest.raises(ft.OptionError, match="unknown stage 'vall'"):
        ft.load_history(path, "vall")
