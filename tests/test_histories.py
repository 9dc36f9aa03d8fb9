"""What a history that is read may hold: damaged, hostile, huge or written by another version."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fno_telemetry as ft
from fno_telemetry import report
from fno_telemetry.report import histories, history_lines
from fno_telemetry.testing import example_record


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.jsonl"


@pytest.fixture(scope="module")
def line() -> dict[str, Any]:
    return json.loads(history_lines.as_line(example_record.example()))


def write(path: Path, *lines: object) -> None:
    texts = [json.dumps(line, separators=(",", ":")) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")


def assert_one_line(path: Path) -> str:
    with pytest.raises(ft.ReportError) as raised:
        ft.load_history(path)
    text = str(raised.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    assert len(text) < len(str(path)) + 250
    return text


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no tables": (lambda d: d.pop("names"), "not a whole record of a history"),
    "tables that are numbers": (lambda d: d.update(edges=3), "not a whole record of a history"),
    "an index of no names": (lambda d: d["modules"][0]["stats"].__setitem__(0, 99), "not a whole record"),
    "a value too many": (lambda d: d["modules"][0]["stats"].append(1.0), "not a whole record"),
    "no statistics": (lambda d: d["modules"][0].pop("stats"), "not a whole record"),
    "a text for statistics": (lambda d: d["modules"][0].update(stats="rms"), "not a whole record"),
    "an index of no reason": (lambda d: d["modules"][0].update(reasons={"rms": 99}), "not a whole record"),
    "an index of no edges": (
        lambda d: d["modules"][0]["log_histogram"].update(edges=99),
        "not a whole record",
    ),
    "an index of no edges of bands": (
        lambda d: d["accuracy"]["bands"].update(band_edges=99),
        "not a whole record",
    ),
    "counts beyond the edges": (
        lambda d: d["modules"][0]["log_histogram"].update({"from": 60, "counts": [1] * 9}),
        "reach beyond its edges",
    ),
    "counts before the edges": (
        lambda d: d["modules"][0]["log_histogram"].update({"from": -1}),
        "reach beyond its edges",
    ),
    "a step that is a fraction": (
        lambda d: d["modules"][0]["histogram"].update(edges={"shift": 0, "first": 0, "steps": [0.5]}),
        "not a whole record",
    ),
    "a place that no number has": (
        lambda d: d["modules"][0]["histogram"].update(edges={"shift": 31, "first": 9, "steps": [1]}),
        "not a whole record",
    ),
    "a shift without end": (
        lambda d: d["modules"][0]["histogram"].update(edges={"shift": 2**40, "first": 1, "steps": [1]}),
        "a shift by 1099511627776 bits",
    ),
    "a place that is not finite": (
        lambda d: d["modules"][0]["histogram"].update(
            edges={"shift": 23, "first": 255, "steps": [0, 0]}, counts=[1, 1]
        ),
        "not finite",
    ),
    "an output that is not there": (lambda d: d.update(output=7), "not a whole record"),
    "a role of nobody": (lambda d: d["modules"][0].update(role="attention"), "not a report of schema 1"),
    "two entries for a module": (lambda d: d["modules"].append(d["modules"][0]), "modules has lifter 2"),
    "a name that is a number": (lambda d: d["names"][0].__setitem__(0, 3), ""),
    "no modules": (lambda d: d.pop("modules"), "not a whole record"),
    "modules that are a number": (lambda d: d.update(modules=3), "not a whole record"),
    "another's report": (lambda d: d.update(report="smdebug/1"), "not an fno-telemetry report"),
    "a newer report": (lambda d: d.update(report="fno-telemetry/2"), "update fno-telemetry"),
    "a newer schema": (lambda d: d.update(schema="fno-telemetry-history/2"), "update fno-telemetry"),
    "a schema of letters": (lambda d: d.update(schema="fno-telemetry-history/x"), "not a history"),
    "a summary that is a list": (lambda d: d.update(summary=[]), "line 1: not a record"),
    "a step that is a text": (lambda d: d["summary"].update(checkpoint_step="x"), "line 1: not a record"),
    "a step beyond 64 bits": (lambda d: d["summary"].update(checkpoint_step=2**80), "checkpoint_step"),
    "a stage of nobody": (lambda d: d["training"].update(stage="test"), "training.stage"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_line_with_a_wrong_value_is_refused_in_one_line(path, line, name):
    change, message = CHANGES[name]
    document = json.loads(json.dumps(line))
    change(document)
    write(path, document)
    assert message in assert_one_line(path)


def test_keys_that_are_not_known_do_not_matter(path, line):
    write(path, {**line, "later": {"any": "thing"}, "modules": [{**line["modules"][0], "later": 1}]})
    [read] = ft.load_history(path)
    assert read.modules[0].name == "lifter"


@pytest.mark.parametrize("damage", [b"\x00" * 10, b"{}", b'{"schema":"fno-tel', b"\xff\xfe", b"NaN"])
def test_a_damaged_line_in_the_middle_is_named_with_its_number(path, line, damage):
    write(path, line)
    whole = path.read_bytes()
    path.write_bytes(whole + damage + b"\n" + whole)
    assert "history.jsonl, line 2: not a record; without that line the others" in assert_one_line(path)
    # Empty lines are no damage.
    path.write_bytes(whole + b"\n \n" + whole)
    assert len(ft.load_history(path)) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"hello",
        b"{}\n",
        b"[]",
        b'{"schema": 1}\n',
        b"\x80\x04\x95.",
        b"\x00" * 100,
        b"[" * 100_000,
    ],
)
def test_what_is_no_history_is_an_error_in_one_line(path, content):
    path.write_bytes(content)
    assert_one_line(path)


def test_what_is_no_file_is_refused_at_once(path, tmp_path):
    assert "no such file; ft.HistoryFile writes histories" in assert_one_line(path)
    assert_one_line(tmp_path / "nowhere" / "history.jsonl")
    os.mkfifo(path)
    assert "a named pipe; expected a history" in assert_one_line(path)
    path.unlink()
    path.mkdir()
    assert "a folder; expected a history" in assert_one_line(path)


def test_a_file_without_end_is_refused_within_bounds(path, line, monkeypatch):
    monkeypatch.setattr(histories, "MOST_BYTES", 2**20)
    write(path, line)
    with path.open("r+b") as file:
        file.truncate(2**40)
    assert "line 2: more than 1,048,576 bytes" in assert_one_line(path)
    with pytest.raises(ft.ReportError, match="a line of more than 1,048,576 bytes is there"):
        ft.HistoryFile(path).write(example_record.example())
    assert path.stat().st_size == 2**40


def test_more_records_than_fit_into_memory_are_refused_and_can_be_read_one_at_a_time(path, line, monkeypatch):
    write(path, *({**line, "summary": {**line["summary"], "checkpoint_step": step}} for step in range(3)))
    monkeypatch.setattr(histories, "_MOST_BYTES_IN_ALL", 1_000)
    assert "bytes of records; expected 1,000 at most" in assert_one_line(path)
    assert [entry.load().step for entry in report.list_history(path)] == [0, 1, 2]


def test_a_small_line_that_stands_for_billions_of_values_is_refused(path, line):
    many = [-8 + index / 2**14 for index in range(2**18)]
    module = line["modules"][0]
    entries = []
    for call in range(1, 40):
        log = {**module["log_histogram"], "edges": len(line["edges"])}
        entries.append({**module, "call": call, "log_histogram": log})
    write(path, {**line, "edges": [*line["edges"], many], "modules": entries})
    assert "more than 4,194,304 edges" in assert_one_line(path)


def test_a_line_of_brackets_alone_is_refused_before_it_fills_the_memory(path, line):
    text = json.dumps({**line, "later": "@"}, separators=(",", ":"))
    path.write_text(text.replace('"@"', "[" + "[]," * 2**21 + "[]]") + "\n")
    assert "too many lists, objects and values" in assert_one_line(path)


def test_entries_have_labels_that_tell_them_apart(path, line):
    def at(step: int | None, **more: object) -> dict[str, Any]:
        return {**line, "summary": {**line["summary"], "checkpoint_step": step, **more}}

    write(path, at(3), at(None), at(3, step_kind="epoch"), {**at(3), "training": {"stage": "val"}})
    assert [entry.label for entry in report.list_history(path)] == ["line2", "step3", "epoch3", "step3.val"]


def test_a_history_is_told_by_its_name_or_its_beginning(tmp_path, line):
    write(tmp_path / "no ending", line)
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "report.json").write_text('{"schema": "fno-telemetry/1"}')
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe")
    told = {path.name: report.is_history(path) for path in tmp_path.iterdir()}
    assert {name for name, is_one in told.items() if is_one} == {"no ending", "empty.jsonl"}
    assert report.is_history(tmp_path / "missing.jsonl")
    assert not report.is_history(tmp_path / "missing")
    assert not report.is_history("null\0character")
