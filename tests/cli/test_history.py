"""`view`, `compare` and `diagnose` of a history."""

from dataclasses import replace
from pathlib import Path

import pytest

import fno_telemetry as ft
from fno_telemetry.records import freeze_mapping


@pytest.fixture
def history(folder: Path, record, examples) -> Path:
    """Steps 0 to 300; the layer `lifter` vanishes at step 200, and one step is a validation."""
    sink = ft.HistoryFile("run/history.jsonl")
    for step, rms in ((0, 1.0), (100, 1.1), (200, 1e-6), (300, 1e-6)):
        found = examples.with_stats(examples.at_step(record, step), "lifter", rms=rms)
        sink.write(found)
    sink.write(replace(found, training=freeze_mapping({"stage": "val"})))
    return Path("run/history.jsonl")


def test_view_shows_the_last_record_or_that_of_a_step(run, history):
    for path in (history, history.parent):
        result = run("view", path)
        assert result.code == 0
        lines = result.out.splitlines()
        assert lines[0] == "run/history.jsonl/step300"
        assert "weights from the checkpoint, step 300;" in lines[1]
        assert result.err == (
            "left out: run/history.jsonl: 1 record of validations, which are a series of their own: "
            "--stage val\n"
        )
        shown = run("view", path, "--step", 100, "--quiet")
        assert "step 100;" in shown.out.splitlines()[0]
    missing = run("view", history, "--step", 150)
    assert (missing.code, missing.out) == (2, "")
    assert "run/history.jsonl: no record of step 150; the nearest are 0, 100, 200" in missing.err


def test_json_is_the_report_that_the_line_stands_for(run, history):
    document = run("view", history, "--step", 200, "--json").document
    assert document["schema"] == "fno-telemetry/1"
    assert document["summary"]["checkpoint_step"] == 200
    [lifter] = [module for module in document["modules"] if module["name"] == "lifter"]
    assert lifter["stats"]["rms"] == 1e-6


@pytest.mark.parametrize("kind", ["history", "folder"])
def test_validations_are_read_where_they_are_asked_for_and_never_mixed_with_the_training(
    run, history, record, kind
):
    path = history
    if kind == "folder":
        path = Path("reports")
        sink = ft.JsonFile()
        sink.open(ft.RunContext(path, series=True))
        for each in ft.load_history(history):
            sink.write(each)
        sink.close(ok=True)
        assert len(list(path.iterdir())) == 5
    shown = run("view", path, "--stage", "val")
    assert ", step 300 in validation;" in shown.out
    assert f"left out: {path}: 4 records of training steps, which are a series of their own" in shown.err
    result = run("diagnose", path)
    counted = "4 records" if kind == "history" else "4 reports"
    assert result.out.splitlines()[0] == f"{counted}, steps 0 to 300"
    assert "--stage val" in result.err
    document = run("compare", path, "--json").document
    assert document["series"]["steps"] == [0, 100, 200, 300]
    alone = run("compare", path, "--stage", "val")
    assert alone.code == 2 and "1 report; compare needs at least two" in alone.err


def test_a_stage_that_is_none_or_is_not_there_is_refused(run, history, record):
    ft.HistoryFile("other/history.jsonl").write(record)
    for options, message in (
        ((history, "--stage", "test"), "--stage 'test': no such stage. Known: train, val."),
        (
            ("other/history.jsonl", "--stage", "val"),
            "other/history.jsonl: no record of validations; leave out",
        ),
        ((history, "--stage", "val", "--tensorboard"), "--stage val is for tables"),
    ):
        refused = run("view", *options)
        assert refused.code == 2
        assert message in refused.err


def test_a_step_is_for_histories_and_tables_alone(run, history, captured):
    for options, message in (
        (("out",), "--step 3 is for a history, and out is none"),
        ((history, "--tensorboard"), "--step 3 is for tables"),
    ):
        refused = run("view", "--step", 3, *options)
        assert refused.code == 2
        assert message in refused.err


def test_compare_takes_a_history_as_a_series(run, history):
    for path in (history, history.parent):
        document = run("compare", path, "--json").document
        assert document["break_step"] == 200


def test_compare_takes_two_histories_as_runs_only_with_group(run, history, record):
    ft.HistoryFile("other/history.jsonl").write(record)
    ft.HistoryFile("third/history.jsonl").write(replace(record, summary=record.summary))
    two = run("compare", history, history.parent.parent / "run")
    assert two.code != 2
    refused = run("compare", "other/history.jsonl", "third/history.jsonl", history)
    assert refused.code == 2
    assert (
        "other/history.jsonl/step1000 and third/history.jsonl/step1000 are both of step 1000" in refused.err
    )
    for paths in (("other", history), ("other/history.jsonl", "run")):
        grouped = run("compare", "--group", *paths, "--json")
        assert grouped.code in (0, 1)


def test_diagnose_takes_a_history_as_a_series(run, history):
    result = run("diagnose", history, "--json")
    assert result.code == 1
    reports = {finding["report"] for finding in result.document["findings"]}
    assert reports <= {f"run/history.jsonl/step{step}" for step in (0, 100, 200, 300)}
    assert run("diagnose", history).out.splitlines()[0] == "4 records, steps 0 to 300"


def test_what_is_no_history_is_an_error_in_one_line(run, folder):
    Path("empty.jsonl").touch()
    Path("other.jsonl").write_text('{"step": 3}\n')
    for command in ("view", "compare", "diagnose"):
        for name in ("empty.jsonl", "other.jsonl", "missing.jsonl"):
            refused = run(command, name)
            assert refused.code == 2
            assert len(refused.err.splitlines()) == 1
            assert name in refused.err


def test_capture_writes_a_history_as_a_sink(run, folder, tiny):
    line = ("capture", "--input", "train.npz", *tiny, "--sink", "history", "--output", "out")
    assert run(*line).code == 0
    [record] = ft.load_history("out/history.jsonl")
    written = ft.load_report("out/activation_report.json")
    assert [module.place for module in record.modules] == [module.place for module in written.modules]
    refused = run("compare", "out", "out", "--sink", "history", "--output", "cmp")
    assert refused.code == 2
    assert "--sink history: the reports are there already" in refused.err


def test_dashboards_show_a_history(run, history):
    result = run("compare", history, "--sink", "tensorboard", "--output", "boards", "--quiet")
    assert result.code in (0, 1)
    found = ft.TensorBoard().read_back(Path("boards"))
    assert list(found) == [0, 100, 200, 300]


def test_a_history_next_to_reports_is_named_if_it_holds_more(run, history, record):
    ft.JsonFile("run/activation_report.json").write(record)
    noted = run("diagnose", "run").err
    assert "left out: run/history.jsonl: a history with 5 more records; name it to read it" in noted
    Path("run/history.jsonl").unlink()
    ft.HistoryFile("run/history.jsonl").write(record)
    assert "history" not in run("diagnose", "run").err
