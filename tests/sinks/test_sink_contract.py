"""What every sink promises, whichever it is."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fno_telemetry import report
from fno_telemetry.sinks.contract import RunContext, Sink
from fno_telemetry.sinks.json_file import JsonFile
from fno_telemetry.sinks.tensorboard.sink import TensorBoard
from torch.utils.tensorboard import SummaryWriter


@dataclass
class Case:
    """A sink, and the steps that a reader finds in what it wrote."""

    make: Callable[[Path], Sink]
    steps: Callable[[Path, Callable], list[int]]
    keeps_all: bool


def _callers_writer(folder: Path) -> TensorBoard:
    return TensorBoard(SummaryWriter(str(folder / "runs")))


def _report_steps(folder: Path, _read_events: Callable) -> list[int]:
    return [report.load_report(folder / "activation_report.json").step]


def _event_steps(where: str) -> Callable[[Path, Callable], list[int]]:
    return lambda folder, read: [step for step, _ in read(folder / where)["rms/lifter"]]


CASES = {
    "json": Case(lambda folder: JsonFile(), _report_steps, keeps_all=False),
    "json-path": Case(lambda folder: JsonFile(folder / "activation_report.json"), _report_steps, False),
    "tensorboard": Case(lambda folder: TensorBoard(), _event_steps("tensorboard/demo"), keeps_all=True),
    "tensorboard-log_dir": Case(lambda f: TensorBoard(log_dir=f / "runs"), _event_steps("runs"), True),
    "tensorboard-writer": Case(_callers_writer, _event_steps("runs"), keeps_all=True),
}


@pytest.fixture(params=CASES)
def case(request) -> Case:
    return CASES[request.param]


@pytest.fixture
def sink(case: Case, tmp_path: Path) -> Sink:
    return case.make(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> RunContext:
    return RunContext(tmp_path, experiment="demo")


def test_records_can_be_read_after_closing(case, sink, run, record, examples, read_events):
    sink.open(run)
    sink.write(record)
    sink.write(examples.at_step(record, 2000))
    sink.close(ok=True)
    assert ([1000, 2000] if case.keeps_all else [2000]) == case.steps(run.folder, read_events)


def test_what_was_flushed_can_be_read_without_closing(case, sink, run, record, read_events):
    sink.open(run)
    sink.write(record)
    sink.flush()
    assert case.steps(run.folder, read_events) == [1000]
    sink.close(ok=True)


def test_closing_returns_lines_of_text_once_there_is_something_to_see(sink, run, record):
    sink.open(run)
    sink.write(record)
    lines = sink.close(ok=True)
    assert lines
    assert all(isinstance(line, str) and line and "\n" not in line for line in lines)


def test_closing_again_changes_nothing(case, sink, run, record, read_events):
    sink.open(run)
    sink.write(record)
    sink.close(ok=True)
    assert sink.close(ok=True) == []
    assert sink.close(ok=False) == []
    assert case.steps(run.folder, read_events) == [1000]


def test_closing_without_opening_is_allowed(sink):
    assert sink.close(ok=False) == []


def test_opening_and_closing_alone_leaves_nothing_behind(sink, run):
    before = sorted(run.folder.rglob("*"))
    sink.open(run)
    sink.flush()
    assert sink.close(ok=True) == []
    assert before == sorted(run.folder.rglob("*"))


def test_a_failed_run_keeps_what_was_written_first(case, sink, run, record, read_events):
    sink.open(run)
    sink.write(record)
    sink.close(ok=False)
    assert case.steps(run.folder, read_events) == [1000]


def test_a_closed_sink_can_be_opened_again(case, sink, run, record, examples, read_events):
    sink.open(run)
    sink.write(record)
    sink.close(ok=True)
    sink.open(run)
    sink.write(examples.at_step(record, 2000))
    sink.close(ok=True)
    assert case.steps(run.folder, read_events)[-1] == 2000


def test_a_sink_never_changes_the_record(sink, run, examples):
    mine = examples.example()
    sink.open(run)
    sink.write(mine)
    sink.close(ok=True)
    assert mine == examples.example()


def test_a_sink_has_a_name(sink):
    assert sink.name in ("json", "tensorboard")


def test_what_was_flushed_survives_a_kill(tmp_path: Path, read_events):
    program = f"""
import os, signal
from pathlib import Path
from fno_telemetry.sinks.contract import RunContext
from fno_telemetry.sinks.tensorboard.sink import TensorBoard
from support import example_record
record = example_record.example()
sink = TensorBoard()
sink.open(RunContext(Path({str(tmp_path)!r}), experiment="demo"))
sink.write(record)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert done.returncode == -9
    events = read_events(tmp_path / "tensorboard" / "demo")
    assert {"rms/lifter", "histogram/lifter", "report/text_summary"} <= set(events)
