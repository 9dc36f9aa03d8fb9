"""Capturing again into a folder that already holds a run."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from fno_telemetry.sinks.contract import RunContext
from fno_telemetry.sinks.fan_out import FanOut
from fno_telemetry.sinks.json_file import JsonFile
from fno_telemetry.sinks.tensorboard.run_folders import SUFFIX
from fno_telemetry.sinks.tensorboard.sink import TensorBoard
from support.sink_runs import write_records


def capture(run: RunContext, *records, ok: bool = True, **options) -> list[str]:
    return write_records(TensorBoard(**options), run, *records, ok=ok)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_second_capture_replaces_the_first(run, folder, record, examples, read_events):
    capture(run, examples.at_step(record, 5), examples.at_step(record, 1000))
    lines = capture(run, examples.at_step(examples.without(record, "fno_blocks.1"), 10))
    events = read_events(folder)
    assert [step for step, _ in events["rms/lifter"]] == [10]
    assert "rms/fno_blocks/1" not in events
    assert len(files(run.folder)) == 3  # tensorboard, its demo and one event file
    assert "replaced" in lines[-1]


def test_until_it_is_closed_a_second_capture_shows_in_no_tensorboard(
    run, folder, record, examples, read_events
):
    capture(run, record)
    before = files(run.folder / "tensorboard")
    sink = TensorBoard()
    sink.open(run)
    sink.write(examples.at_step(record, 2000))
    assert before == files(run.folder / "tensorboard")
    sink.close(ok=True)
    assert [step for step, _ in read_events(folder)["rms/lifter"]] == [2000]


def test_a_second_capture_that_fails_leaves_the_first(run, folder, record, examples, read_events):
    capture(run, record)
    before = files(run.folder)
    assert capture(run, examples.at_step(record, 2000), ok=False) == []
    assert before == files(run.folder)
    assert [step for step, _ in read_events(folder)["rms/lifter"]] == [1000]


def test_a_second_capture_without_a_record_leaves_the_first(run, record):
    capture(run, record)
    before = files(run.folder)
    assert capture(run) == []
    assert before == files(run.folder)


def test_files_of_others_are_kept_even_event_files(run, folder, record, examples, read_events):
    capture(run, record)
    with SummaryWriter(str(folder)) as writer:
        writer.add_scalar("loss/train", 1.0, 3)
    (folder / "notes.txt").write_text("mine")
    (folder / "nested").mkdir()
    others = [name for name in files(folder) if not name.endswith(SUFFIX)]
    capture(run, examples.at_step(record, 2000))
    assert others == [name for name in files(folder) if not name.endswith(SUFFIX)]
    events = read_events(folder)
    assert events["loss/train"] == [(3, 1.0)]
    assert [step for step, _ in events["rms/lifter"]] == [2000]


def test_other_experiments_are_left_alone(tmp_path: Path, record, read_events):
    for experiment in ("one", "two", "one"):
        capture(RunContext(tmp_path, experiment=experiment), record)
    for experiment in ("one", "two"):
        assert len(read_events(tmp_path / "tensorboard" / experiment)["rms/lifter"]) == 1


def test_a_given_log_dir_is_replaced_too(tmp_path: Path, record, examples, read_events):
    run = RunContext(tmp_path / "elsewhere")
    capture(run, record, log_dir=tmp_path / "runs" / "mine")
    capture(run, examples.at_step(record, 1), log_dir=tmp_path / "runs" / "mine")
    assert [step for step, _ in read_events(tmp_path / "runs" / "mine")["rms/lifter"]] == [1]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["mine"]


def test_an_error_in_replacing_leaves_the_first(run, folder, record, examples, read_events, monkeypatch):
    capture(run, record)
    before = files(run.folder)
    sink = TensorBoard()
    sink.open(run)
    sink.write(examples.at_step(record, 2000))
    calls = []

    def fail(source, target, **options):
        calls.append(source)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="No space left"):
        sink.close(ok=True)
    assert len(calls) == 1
    assert before == files(run.folder)
    assert [step for step, _ in read_events(folder)["rms/lifter"]] == [1000]


def captures_at_once(folder: Path, records, read_events):
    """Open a capture for each record before any is closed, as the jobs of an array do; return the events."""
    fans = [FanOut([JsonFile(), TensorBoard()], required="json") for _ in records]
    for number, fan in enumerate(fans):
        fan.open(RunContext(folder, f"r{number}.json", experiment="demo"))
    for fan, record in zip(fans, records, strict=True):
        fan.write(record)
    for fan in fans:
        assert set(fan.close(ok=True).status.values()) == {"ok"}
    return read_events(folder / "tensorboard" / "demo")


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)])
def test_captures_at_once_into_one_folder_are_one_run_of_ascending_steps(
    tmp_path, record, examples, read_events, order
):
    record = replace(record, provenance=type(record.provenance)({**record.provenance, "experiment": "demo"}))
    records = [examples.at_step(record, 10 * number) for number in order]
    events = captures_at_once(tmp_path, records, read_events)
    assert [step for step, _ in events["rms/lifter"]] == [0, 10, 20, 30]
    assert len(list((tmp_path / "tensorboard" / "demo").iterdir())) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *(f"r{n}.json" for n in range(4)),
        "tensorboard",
    ]


def test_of_two_captures_at_once_the_one_whose_report_stays_is_shown(tmp_path, record, examples, read_events):
    run = RunContext(tmp_path, experiment="demo")
    record = replace(record, provenance=type(record.provenance)({**record.provenance, "experiment": "demo"}))
    layers = type(record.layers)({**record.layers, "lifter/mean": (0.9, 0.9)})
    second = replace(examples.with_stats(record, "lifter", rms=7.0), layers=layers)
    sinks = TensorBoard(), TensorBoard()
    for sink in sinks:
        sink.open(run)
    for each in (record, second):
        write_records(JsonFile(), run, each)
    for sink, each in zip(sinks, (record, second), strict=True):
        sink.write(each)
    for sink in reversed(sinks):
        sink.close(ok=True)
    assert read_events(tmp_path / "tensorboard" / "demo")["rms/lifter"] == [(1000, 7.0)]


def test_records_that_replace_the_report_of_the_one_before_are_all_shown(
    tmp_path, record, examples, read_events
):
    provenance = type(record.provenance)({**record.provenance, "experiment": "demo", "time": "2026-11-29"})
    fan = FanOut([JsonFile(), TensorBoard()], required="json")
    for _ in range(2):  # the second time into a run that is there
        fan.open(RunContext(tmp_path, experiment="demo"))
        for step in (10, 20, 30):
            fan.write(replace(examples.at_step(record, step), provenance=provenance))
        fan.close(ok=True)
        events = read_events(tmp_path / "tensorboard" / "demo")
        assert [step for step, _ in events["rms/lifter"]] == [10, 20, 30]


def test_a_report_without_an_experiment_costs_no_record(tmp_path, record, examples, read_events):
    assert "experiment" not in record.provenance
    for step in (1000, 7):
        fan = FanOut([JsonFile(), TensorBoard()], required="json")
        fan.open(RunContext(tmp_path, experiment="demo"))
        fan.write(examples.at_step(record, step))
        fan.close(ok=True)
    events = read_events(tmp_path / "tensorboard" / "demo")
    assert [step for step, _ in events["rms/lifter"]] == [7]
