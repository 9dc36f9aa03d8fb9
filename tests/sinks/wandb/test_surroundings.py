"""What other captures, other processes and the machine do to W&B's runs: each ends whole, or in one line."""

import os
import resource
import threading
from pathlib import Path

import pytest

from fno_telemetry.errors import SinkUnavailable
from fno_telemetry.sinks.contract import RunContext
from fno_telemetry.sinks.wandb import own_runs, session, transaction_log
from fno_telemetry.sinks.wandb.run_notes import runs_in
from fno_telemetry.sinks.wandb.sink import WandbRun
from support.sink_runs import write_records


def opened(folder: Path, **options) -> WandbRun:
    sink = WandbRun(**options)
    sink.open(RunContext(folder, experiment="demo"))
    return sink


def steps(folder: Path) -> list[int]:
    return sorted(transaction_log.read_numbers(folder))


def test_captures_at_once_take_turns_in_one_online_run(server, alone, record, examples):
    first, second = opened(alone), opened(alone)
    first.write(examples.at_step(record, 2000))
    thread = threading.Thread(target=second.write, args=(examples.at_step(record, 1000),))
    thread.start()
    thread.join(0.3)
    assert thread.is_alive()
    first.write(examples.at_step(record, 3000))
    first.close(True)
    thread.join(30)
    second.close(True)
    [run] = server.runs.values()
    assert [row["checkpoint_step"] for row in run.record_rows] == [2000, 3000, 1000]
    assert not list((alone / "wandb").glob(".*"))


def test_a_capture_that_waits_too_long_for_the_online_run_is_offline_and_can_join_it(
    server, alone, record, examples, monkeypatch
):
    monkeypatch.setattr(own_runs, "WAIT_SECONDS", 0.1)
    first, second = opened(alone), opened(alone)
    first.write(record)
    second.write(examples.at_step(record, 2000))
    why, *_, sync = second.close(True)
    first.close(True)
    assert why == "W&B is offline: another capture of this experiment is writing its run"
    [name] = server.runs
    assert f"wandb sync --id {name} " in sync


def test_captures_at_once_offline_have_a_folder_each_and_one_id(alone, record, examples):
    sinks = [opened(alone, mode="offline") for _ in range(3)]
    for number, sink in enumerate(sinks):
        sink.write(examples.at_step(record, number))
        sink.close(True)
    runs = runs_in(alone)
    assert len({run.id for run in runs}) == 1
    assert [steps(run.folder) for run in runs] == [[0], [1], [2]]


@pytest.mark.parametrize("named", ["3-1-unix-/nowhere/socket", "3-1-tcp-localhost-9", "of another version"])
def test_a_process_of_wandb_that_has_ended_is_replaced_by_a_new_one(alone, record, monkeypatch, named):
    monkeypatch.setenv("WANDB_SERVICE", named)
    before = dict(os.environ)
    write_records(WandbRun(mode="offline"), RunContext(alone), record)
    assert os.environ == before
    [run] = runs_in(alone)
    assert steps(run.folder) == [1000]


def test_what_the_process_starts_later_is_not_told_of_our_process(alone, record):
    before = dict(os.environ)
    write_records(WandbRun(mode="offline"), RunContext(alone), record)
    assert os.environ == before


@pytest.mark.parametrize("variable", ["WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "HOME"])
def test_a_folder_of_wandb_that_cannot_be_written_costs_nothing_and_prints_nothing(
    alone, record, monkeypatch, capfd, variable
):
    import wandb

    monkeypatch.setenv(variable, str(Path(os.devnull) / "wandb"))
    lines = write_records(WandbRun(mode="offline"), RunContext(alone), record)
    wandb.teardown()
    assert len(lines) == 3
    assert capfd.readouterr() == ("", "")


def test_a_disk_without_room_for_the_log_is_a_failure(alone, record, examples, monkeypatch):
    def children() -> set[str]:
        return set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())

    def start_without_room() -> None:
        before = children()
        start_service()
        [process] = children() - before
        resource.prlimit(int(process), resource.RLIMIT_FSIZE, (20_000, 20_000))

    start_service = session.start_service
    monkeypatch.setattr("fno_telemetry.sinks.wandb.starting.start_service", start_without_room)
    monkeypatch.setattr(own_runs, "WHOLE_SECONDS", 1)
    with pytest.raises(SinkUnavailable, match=r"W&B has not written all of .*: is there room on the disk"):
        write_records(WandbRun(mode="offline"), RunContext(alone), record, examples.at_step(record, 2000))
    [run] = runs_in(alone)
    assert run.problem == own_runs.CUT_OFF


def test_a_folder_whose_name_is_not_utf8_is_refused_before_the_capture(alone):
    with pytest.raises(SinkUnavailable, match="its name is not UTF-8; choose another folder"):
        opened(alone / "out\udcff", mode="offline")
