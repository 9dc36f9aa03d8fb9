"""The line in which a watch says how the training goes, and what it says of its own cost."""

import io
import logging
import re
import sys
import time

import pytest
import torch
from tqdm import tqdm

import fno_telemetry as ft
from fno_telemetry.testing.in_memory_sink import InMemorySink
from fno_telemetry.watching import live_line
from fno_telemetry.watching.live_line import describe_progress

IN_PLACE = "\r\x1b[K"


class Stream(io.StringIO):
    """A file, or a terminal."""

    encoding = "utf-8"

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self):
        return self._is_terminal


@pytest.fixture
def streams(monkeypatch):
    """Let stdout and stderr be terminals or files; return both."""

    def replace(out: bool, err: bool) -> tuple[Stream, Stream]:
        made = Stream(out), Stream(err)
        monkeypatch.setattr(sys, "stdout", made[0])
        monkeypatch.setattr(sys, "stderr", made[1])
        monkeypatch.setenv("TERM", "xterm")
        return made

    return replace


def train(steps=5, each=lambda step: None, **options):
    """Train a small network, of which every second step is due; return the watch."""
    model = torch.nn.Conv2d(1, 1, 3, padding=1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with ft.watch(model, [InMemorySink()], every=2, **options) as watch:
        for step in range(steps):
            loss = model(torch.ones(2, 1, 8, 8)).square().mean()
            loss.backward()
            optimizer.step()
            watch.step(step, loss=loss)
            each(step)
    return watch


def test_a_terminal_of_its_own_has_one_line_that_is_replaced(streams):
    out, err = streams(out=False, err=True)
    train()
    written = err.getvalue()
    assert [part.split(" · ")[0] for part in written.split(IN_PLACE)] == ["", "step 0", "step 2", "step 4"]
    assert written.count("\n") == 1
    assert written.endswith("of the run's time\n")
    assert out.getvalue() == ""


def test_in_the_terminal_of_the_loops_own_lines_each_is_a_line_now_and_then(streams, monkeypatch):
    _, err = streams(out=True, err=True)
    train()
    lines = err.getvalue().splitlines()
    assert [line.split(" · ")[0] for line in lines] == ["step 0", "step 4"]  # the first and the last
    assert "\r" not in err.getvalue() and "\x1b" not in err.getvalue()
    monkeypatch.setattr(live_line, "PAUSE", 0.0)
    train()
    assert len(err.getvalue().splitlines()) == 5


@pytest.mark.parametrize("options", [{}, {"progress": None}, {"progress": False}])
def test_where_stderr_is_no_terminal_nothing_is_written_by_default(streams, options):
    out, err = streams(out=True, err=False)
    train(**options)
    assert err.getvalue() == out.getvalue() == ""


def test_nothing_is_written_if_it_is_turned_off_or_the_terminal_is_dumb(streams, monkeypatch):
    _, err = streams(out=False, err=True)
    train(progress=False)
    monkeypatch.setenv("TERM", "dumb")
    train()
    assert err.getvalue() == ""


def test_who_asks_for_it_gets_a_line_for_each_record_in_a_file(streams):
    _, err = streams(out=False, err=False)
    train(progress=True)
    assert [line.split(" · ")[0] for line in err.getvalue().splitlines()] == ["step 0", "step 2", "step 4"]


def test_a_bar_of_tqdm_is_not_torn(streams):
    _, err = streams(out=False, err=True)
    bar = tqdm(total=5, file=err, mininterval=0, ascii=True)
    train(each=lambda step: bar.update())
    assert "step" not in err.getvalue()
    train(progress=True, each=lambda step: bar.refresh())
    bar.close()
    lines = re.split(r"[\r\n]", err.getvalue())
    assert [line.split(" · ")[0] for line in lines if "step" in line] == ["step 0", "step 2", "step 4"]
    assert not any("step" in line and "it/s" in line for line in lines)


def test_a_stream_that_is_closed_does_not_reach_the_loop(streams):
    _, err = streams(out=False, err=True)
    watch = train(each=lambda step: err.close())
    assert watch.recorded == 3
    assert watch.problems == []


def test_another_value_is_refused():
    with pytest.raises(ft.OptionError, match="`progress` is 'yes'; expected True, False or None"):
        ft.watch(torch.nn.Linear(1, 1), progress="yes")


def test_the_line_has_the_loss_the_blocks_the_first_finding_and_the_cost(record, examples):
    text = describe_progress(examples.add_findings(examples.at_step(record, 400)), 0.01834)
    step, *parts = text.split(" · ")
    assert step == "step 400"
    assert parts[0].startswith("loss ") or parts[0].startswith("rms ")
    assert any(re.fullmatch(r"rms \S+–\S+|rms \S+", part) for part in parts)
    assert any(re.fullmatch(r"\d+ (error|warning)s? \(.+ in .+\)", part) for part in parts)
    assert parts[-1] == "1.8 % of the run's time"


def test_a_step_that_is_not_finite_says_where_it_begins(record, examples):
    broken = examples.with_stats(record, "lifter", finite_fraction=0.5)
    assert "not finite from lifter on" in describe_progress(broken, 0.0)


def test_with_diagnose_the_line_is_of_judged_records(streams):
    _, err = streams(out=False, err=False)
    train(progress=True, diagnose=True, each=lambda step: time.sleep(0.05))
    assert err.getvalue().splitlines()[-1].startswith("step 4 · ")


def test_the_cost_is_logged_once_at_the_end(caplog):
    with caplog.at_level(logging.INFO, "fno_telemetry"):
        watch = train()
    [line] = [message for message in caplog.messages if "the loop waited" in message]
    assert line.startswith("fno-telemetry: 3 records; the loop waited ")
    assert re.search(r"waited (\S+) s for the watch, \S+ % of its \S+ s$", line)
    assert watch.seconds > 0


def test_the_cost_is_the_time_of_due_steps_alone():
    started = time.perf_counter()
    watch = train(steps=4, each=lambda step: time.sleep(0.1))
    assert watch.seconds < time.perf_counter() - started - 0.4
