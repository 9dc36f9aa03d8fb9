"""Sinks of a watched loop: nothing they do reaches the loop, and what they lose is counted and said."""

import asyncio
import contextlib
import errno
import logging
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import fno_telemetry as ft
from fno_telemetry.sinks.contract import RunContext
from fno_telemetry.sinks.wandb import transaction_log
from fno_telemetry.sinks.wandb.sink import WandbRun
from fno_telemetry.testing.in_memory_sink import InMemorySink
from fno_telemetry.watching.delivery import Delivery
from support import wandb_stand_in, wandb_surroundings

alone, run_program = wandb_surroundings.alone, wandb_surroundings.run_program

LONGEST_WAIT = 30  # seconds for what should be there at once
STEPS = 6


class Raising(InMemorySink):
    """Raises an error in one of its methods."""

    def __init__(self, where: str, error: BaseException, belongs_to_caller: bool = False) -> None:
        super().__init__()
        self.name, self.belongs_to_caller = "raising", belongs_to_caller
        self._where, self._error = where, error
        self.calls: list[str] = []

    def _call(self, where: str) -> None:
        self.calls.append(where)
        if where == self._where:
            raise self._error

    def open(self, run: RunContext) -> None:
        self._call("open")
        super().open(run)

    def write(self, record: ft.CaptureRecord) -> None:
        self._call("write")
        super().write(record)

    def flush(self) -> None:
        self._call("flush")

    def close(self, ok: bool) -> list[str]:
        self._call("close")
        return super().close(ok)


class Waiting(InMemorySink):
    """Waits for an event in its first `write`."""

    def __init__(self, name: str = "waiting") -> None:
        super().__init__()
        self.name = name
        self.has_begun, self.may_end = threading.Event(), threading.Event()

    def write(self, record: ft.CaptureRecord) -> None:
        self.has_begun.set()
        assert self.may_end.wait(LONGEST_WAIT)
        super().write(record)


@pytest.fixture
def good() -> InMemorySink:
    return InMemorySink()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING, "fno_telemetry")
    return lambda: [each.getMessage() for each in caplog.records]


def train(watch: ft.Watch | None = None, network: nn.Module | None = None, number: int = STEPS):
    """Return the losses of a loop; without a watch, those it would have without."""
    torch.manual_seed(0)
    network = network or make()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    losses = []
    for step in range(number):
        x = torch.full((2, 3), 1.0 + step)
        loss = network(x).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if watch is not None:
            watch.step(step, loss=loss)
    return losses


def make() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 1))


def steps_of(sink: InMemorySink) -> list[int | None]:
    return [record.step for record in sink.records]


ERRORS = [
    RuntimeError("no"),
    SystemExit(3),
    OSError(errno.ENOSPC, "No space left on device"),
    ConnectionResetError("the server is gone"),
    asyncio.CancelledError("late"),
]


# A dashboard of the caller's is not flushed in the loop.
WHERE = [(where, False) for where in ("open", "write", "flush", "close")]
WHERE += [(where, True) for where in ("open", "write", "close")]


@pytest.mark.parametrize(("where", "belongs_to_caller"), WHERE)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_sink_that_raises_is_named_once_and_the_loop_and_others_go_on(
    good, said, error, where, belongs_to_caller
):
    bad = Raising(where, error, belongs_to_caller)
    network = make()
    with ft.watch(network, [bad, good], every=1) as watch:
        losses = train(watch, network)
    assert losses == train()
    assert steps_of(good) == list(range(STEPS))
    [problem] = watch.problems
    assert problem.startswith("the sink raising failed: ")
    assert said() == [f"fno-telemetry: {problem}"]
    assert bad.calls.count(where) == 1
    # Closed in any case, and given nothing after the error.
    assert bad.calls[-1] == "close"
    assert bad.calls.count("write") == {"open": 0, "write": 1, "flush": 1, "close": STEPS}[where]


def test_a_sink_that_is_not_there_is_said_before_the_loop_and_the_others_are_closed(good):
    unavailable = Raising("open", ft.SinkUnavailable("no server"))
    with pytest.raises(ft.SinkUnavailable, match="no server"):
        ft.watch(make(), [good, unavailable])
    assert good.run is None
    with pytest.raises(ft.OptionError, match="`sinks` holds a str"):
        ft.watch(make(), ["tensorboard"])
    with pytest.raises(ft.OptionError, match="unknown budget"):
        ft.watch(make(), [good], budget="medium")
    assert good.run is None


def test_a_sink_that_hangs_holds_up_neither_the_loop_nor_another_sink(good):
    slow = Waiting()
    network = make()
    with ft.watch(network, [slow, good], every=1) as watch:
        losses = train(watch, network)
        assert slow.has_begun.wait(LONGEST_WAIT)
        assert slow.records == []
        slow.may_end.set()
    assert losses == train()
    assert steps_of(slow) == steps_of(good) == list(range(STEPS))
    assert watch.problems == []


def test_what_a_slow_sink_has_no_room_for_is_counted_in_the_next_record_and_said(
    good, said, record, examples
):
    slow = Waiting()
    delivery = Delivery([slow, good], most_waiting=2)
    delivery.deliver(examples.at_step(record, 0))
    assert slow.has_begun.wait(LONGEST_WAIT)
    counts = []
    for step in range(1, 6):
        delivery.deliver(examples.at_step(record, step))
        counts.append(delivery.dropped)
        wait_for(lambda step=step: len(good.records) == step + 1)
    assert counts == [0, 0, 1, 2, 3]
    slow.may_end.set()
    delivery.close()
    assert steps_of(slow) == [0, 1, 2]
    assert steps_of(good) == list(range(6))
    assert said() == ["fno-telemetry: records that sinks did not get: waiting 3"]


def test_the_next_record_says_how_many_were_dropped(good, monkeypatch):
    from fno_telemetry.watching import delivery

    monkeypatch.setattr(delivery, "MOST_WAITING", 1)
    slow = Waiting()
    network = make()
    with ft.watch(network, [slow], every=1) as watch:
        train(watch, network, 1)
        assert slow.has_begun.wait(LONGEST_WAIT)
        train(watch, network, 4)
        slow.may_end.set()
        wait_for(lambda: len(slow.records) == 2)
        network(torch.ones(2, 3))
        watch.step(4)
    assert [record.training["dropped"] for record in slow.records] == [0, 0, 3]
    assert watch.problems[-1] == "records that sinks did not get: waiting 3"


def wait_for(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(LONGEST_WAIT * 100):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it did not happen")


class Refusing(InMemorySink):
    """Takes each step once."""

    name = "refusing"

    def write(self, record: ft.CaptureRecord) -> None:
        if record.step in [each.step for each in self.records]:
            raise ft.OptionError(f"a record at step {record.step} was already written")
        super().write(record)


@pytest.mark.parametrize("belongs_to_caller", [False, True])
def test_a_record_that_a_sink_refuses_is_dropped_and_the_sink_goes_on(record, examples, belongs_to_caller):
    sink = Refusing()
    sink.belongs_to_caller = belongs_to_caller
    delivery = Delivery([sink])
    for step in (1, 1, 1, 2):
        delivery.deliver(examples.at_step(record, step))
    delivery.close()
    assert steps_of(sink) == [1, 2]
    assert delivery.dropped == 2
    assert delivery.problems.lines == [
        "the sink refusing refused a record: a record at step 1 was already written",
        "records that sinks did not get: refusing 2",
    ]


@pytest.mark.parametrize(
    ("where", "belongs_to_caller"), [("write", False), ("close", False), ("close", True)]
)
def test_closing_waits_for_a_while_and_then_says_what_is_left(record, where, belongs_to_caller):
    stuck = Waiting()
    stuck.belongs_to_caller = belongs_to_caller
    if where == "close":
        stuck.may_end.set()
        released = threading.Event()
        stuck.close = lambda ok: [str(released.wait(LONGEST_WAIT))]
    delivery = Delivery([stuck], closing_seconds=0.05)
    delivery.deliver(record)
    assert stuck.has_begun.wait(LONGEST_WAIT)
    delivery.deliver(record)
    delivery.close()
    left = "; 1 records are left" if where == "write" else ""
    assert delivery.problems.lines == [f"the sink waiting has not finished after 0.05 s{left}"]
    delivery.close()
    (stuck.may_end if where == "write" else released).set()


def test_nothing_is_delivered_after_closing(good, record):
    delivery = Delivery([good])
    delivery.close()
    delivery.deliver(record)
    assert good.records == [] and delivery.dropped == 0


def test_records_of_a_loop_are_reports_of_a_series_in_a_folder_made_with_the_first(tmp_path):
    folder = tmp_path / "run" / "reports"
    network = make()
    with ft.watch(network, [ft.JsonFile()], every=2, folder=folder) as watch:
        assert not folder.parent.exists()
        losses = train(watch, network, 5)
    assert watch.problems == []
    assert sorted(path.name for path in folder.iterdir()) == [
        f"activation_report.step{step}.json" for step in (0, 2, 4)
    ]
    found = ft.load_report(folder / "activation_report.step4.json")
    assert found.step == 4 and found.summary["loss"] == losses[4]


def test_a_full_disk_costs_a_report_and_nothing_else(tmp_path, good):
    network = make()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, before[1]))
        with ft.watch(network, [ft.JsonFile(), good], every=1, folder=tmp_path) as watch:
            losses = train(watch, network)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert losses == train()
    assert len(good.records) == STEPS
    [problem] = watch.problems
    assert problem.startswith("the sink json failed: ") and "File too large" in problem
    assert list(tmp_path.iterdir()) == []


PROGRAM = """
import os, signal, sys, threading
import torch
from torch import nn
import fno_telemetry as ft
from fno_telemetry.testing.in_memory_sink import InMemorySink
from fno_telemetry.watching import delivery

class Stuck(InMemorySink):
    def write(self, record):
        threading.Event().wait()

class Slow(ft.JsonFile):
    def write(self, record):
        threading.Event().wait(0.1)
        super().write(record)

delivery.CLOSING_SECONDS = float(sys.argv[1])
network = nn.Linear(3, 1)
watch = ft.watch(network, {sinks}, every=1, folder=sys.argv[2])
for step in range(5):
    network(torch.ones(2, 3)).mean().backward()
    watch.step(step)
{end}
"""

ENDS = {
    "normal": ("", 0),
    "exit": ("sys.exit(3)", 3),
    "exception": ("raise ValueError('mine')", 1),
    # A program that is started in the background ignores it otherwise.
    "interrupt": (
        "signal.signal(signal.SIGINT, signal.default_int_handler); signal.raise_signal(signal.SIGINT)",
        -2,
    ),
}


def run_loop(tmp_path: Path, sinks: str, end: str, seconds: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(sinks=sinks, end=end), str(seconds), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        check=False,
    )


@pytest.mark.parametrize("end", ENDS)
def test_a_program_that_ends_without_closing_loses_no_record_and_never_hangs(tmp_path, end):
    code, status = ENDS[end]
    done = run_loop(tmp_path, "[Slow(), ft.TensorBoard()]", code, 60)
    assert done.returncode == status, done.stderr
    names = sorted(path.name for path in (tmp_path / "out").glob("*.json"))
    assert names == [f"activation_report.step{step}.json" for step in range(5)]
    assert ft.TensorBoard().read_back(tmp_path / "out").keys() == set(range(5))
    assert "fno-telemetry:" not in done.stderr


@pytest.mark.parametrize("end", ["normal", "interrupt"])
def test_a_program_ends_while_a_sink_hangs_and_the_others_have_everything(tmp_path, end):
    code, status = ENDS[end]
    done = run_loop(tmp_path, "[Stuck(), ft.JsonFile()]", code, 1)
    assert done.returncode == status, done.stderr
    assert len(list((tmp_path / "out").glob("*.json"))) == 5
    assert "the sink in_memory has not finished after 1 s; 4 records are left" in done.stderr


def test_a_run_of_its_own_in_wandb_is_whole_when_the_program_ends_without_closing(run_program, tmp_path):
    done = run_program(
        """
import torch
network = torch.nn.Linear(3, 1)
watch = ft.watch(network, [WandbRun(mode="offline")], every=1, folder="out")
for step in range(3):
    network(torch.ones(2, 3)).mean().backward()
    watch.step(step)
raise ValueError("mine")
""",
        anew=True,
    )
    assert done.returncode == 1 and "ValueError: mine" in done.stderr
    assert "fno-telemetry:" not in done.stderr
    assert WandbRun().read_back(tmp_path / "out").keys() == {0, 1, 2}
    [run] = (tmp_path / "out" / "wandb").glob("offline-run-*")
    assert transaction_log.is_whole(run)


def test_a_server_that_is_lost_costs_no_record_of_another_sink(alone, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", wandb_stand_in.API_KEY)
    network = make()
    online = WandbRun(mode="online", init_timeout=1)
    with ft.watch(network, [online, ft.JsonFile()], every=1, folder=alone) as watch:
        losses = train(watch, network)
    assert losses == train()
    assert len(list(alone.glob("*.json"))) == STEPS
    # Nobody answers: what was to be sent is kept on disk.
    assert watch.problems == []
    assert WandbRun().read_back(alone).keys() == set(range(STEPS))


class Numbers(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((3,), float(index))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_workers_of_a_data_loader_are_forked_while_a_sink_writes(good):
    slow = Waiting()
    network = make()
    with ft.watch(network, [slow, good], every=1) as watch:
        step = 0
        for _ in range(2):
            for x in DataLoader(Numbers(), batch_size=2, num_workers=2, multiprocessing_context="fork"):
                network(x).mean().backward()
                watch.step(step)
                step += 1
                assert slow.has_begun.wait(LONGEST_WAIT)
        slow.may_end.set()
    assert steps_of(slow) == steps_of(good) == list(range(8))
    assert watch.problems == []


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_process_that_is_forked_off_writes_nothing_and_ends(record):
    slow = Waiting()
    delivery = Delivery([slow], judge=lambda record: record)
    delivery.deliver(record)
    assert slow.has_begun.wait(LONGEST_WAIT)
    holds, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with contextlib.ExitStack() as stack:
            for lock in locks_of(delivery):
                stack.enter_context(lock)
            holds.set()
            may_end.wait(LONGEST_WAIT)

    # A thread that the child does not have.
    holder = threading.Thread(target=hold)
    holder.start()
    assert holds.wait(LONGEST_WAIT)
    child = os.fork()
    if child == 0:
        delivery.deliver(record)
        delivery.catch_up()
        delivery.close()
        os._exit(7)
    may_end.set()
    holder.join()
    wait_for(lambda: (ended := os.waitpid(child, os.WNOHANG))[0] == child and ended[1] == 7 << 8)
    slow.may_end.set()
    delivery.close()
    assert len(slow.records) == 1


def locks_of(delivery: Delivery) -> Iterator[contextlib.AbstractContextManager[object]]:
    """Return every lock that delivering takes."""
    yield delivery._judging._changed
    yield from (outlet.background._changed for outlet in delivery._apart)
    yield delivery.problems._lock
