"""Hands records to sinks without holding up a training loop, and without raising anything into it."""

import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from fno_telemetry.errors import OptionError, SinkUnavailable, TelemetryError
from fno_telemetry.records import CaptureRecord
from fno_telemetry.sinks.contract import RunContext, Sink
from fno_telemetry.sinks.fan_out import check_sinks, name_sinks
from fno_telemetry.watching.background import Background
from fno_telemetry.wording import describe_error, to_one_line

_log = logging.getLogger("fno_telemetry")

MOST_WAITING = 16
"""Records that wait for a slow sink; further ones are dropped and counted."""

CLOSING_SECONDS = 60.0
"""How long `close`, or the end of the program without it, waits for slow sinks."""

_LONGEST_REASON = 300

Judge = Callable[[CaptureRecord], CaptureRecord]
"""Returns a record with what was found in it."""


class Problems:
    """What went wrong: each line once, in `lines` and in the log. Any thread may note one."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._lock = threading.Lock()

    def note(self, problem: str) -> None:
        """Add a problem that is new."""
        with self._lock:
            if problem in self.lines:
                return
            self.lines.append(problem)
        _log.warning("fno-telemetry: %s", problem)


class Delivery:
    """Writes into dashboards that the caller owns in the loop, and into each other sink on its own thread.

    So a sink that hangs holds up neither the loop nor another sink. A sink that raises is named in `problems`
    and gets nothing more. With `judge`, every record is judged on a thread before any sink has it; dashboards
    of the caller's then get it in the next `catch_up`.

    Without `close`, the end of the program closes what is open. A process that was forked off writes nothing.
    """

    def __init__(
        self,
        sinks: Iterable[Sink],
        folder: str | Path = ".",
        judge: Judge | None = None,
        most_waiting: int | None = None,
        closing_seconds: float | None = None,
    ) -> None:
        self.problems = Problems()
        self._closing_seconds = CLOSING_SECONDS if closing_seconds is None else closing_seconds
        most = MOST_WAITING if most_waiting is None else most_waiting
        given = check_sinks(sinks)
        outlets = [
            _Outlet(name, sink, self.problems, most)
            for name, sink in zip(name_sinks(given), given, strict=True)
        ]
        _open_all(outlets, RunContext(Path(folder), series=True))
        self._in_loop = [outlet for outlet in outlets if outlet.belongs_to_caller]
        self._apart = [outlet for outlet in outlets if not outlet.belongs_to_caller]
        self._judge = judge
        self._judged: deque[CaptureRecord] = deque()  # for the dashboards of the caller's
        self._judging = Background("diagnosis", self._judge_one, lambda: None, most)
        self._unjudged = 0
        self._process = os.getpid()
        self._is_closed = False
        _close_at_the_end(self)

    @property
    def dropped(self) -> int:
        """How many records did not get to a sink, counted for each sink; one that failed does not count."""
        return self._unjudged + sum(outlet.dropped for outlet in (*self._in_loop, *self._apart))

    @property
    def judges(self) -> bool:
        """Whether records are judged before sinks get them."""
        return self._judge is not None

    @property
    def is_behind(self) -> bool:
        """Whether `catch_up` has something to write."""
        return bool(self._judged)

    def deliver(self, record: CaptureRecord) -> None:
        """Write a record where the caller's own rows go, and queue it for the other sinks."""
        if self._is_closed or self._is_forked():
            return
        if self._judge is None:
            self._queue(record)
            self._write_in_loop(record)
        elif not self._judging.put(record):
            self._unjudged += 1

    def catch_up(self) -> None:
        """Write the next record that was judged into the dashboards of the caller's.

        One at a time, because W&B has no room for two records in one row of the caller's.
        """
        if self._judged and not self._is_forked():
            self._write_in_loop(self._judged.popleft())

    def close(self) -> None:
        """Wait until the waiting records are written, but not longer than `closing_seconds`; close sinks."""
        if self._is_closed or self._is_forked():
            return
        self._is_closed = True
        _open.discard(self)
        until = time.monotonic() + self._closing_seconds
        if self._judge is not None:
            self._judging.end()
            if not self._judging.join(until - time.monotonic()):
                self._say_unfinished("the diagnosis", self._judging)
            while self._judged:
                self.catch_up()
        outlets = (*self._in_loop, *self._apart)
        for outlet in outlets:
            outlet.background.end()
        for outlet in outlets:
            if not outlet.background.join(until - time.monotonic()):
                self._say_unfinished(f"the sink {outlet.name}", outlet.background)
        parts = [f"{outlet.name} {outlet.dropped}" for outlet in outlets if outlet.dropped]
        if self._unjudged:
            parts.append(f"all sinks {self._unjudged}")
        if parts:
            self.problems.note(f"records that sinks did not get: {', '.join(parts)}")

    def _judge_one(self, record: CaptureRecord) -> None:
        if self._judge is not None:
            try:
                record = self._judge(record)
            except BaseException as error:  # noqa: BLE001 - a rule of another package may raise anything
                self.problems.note(f"a record could not be diagnosed: {describe_error(error)}")
        self._queue(record)
        if self._in_loop:
            self._judged.append(record)

    def _queue(self, record: CaptureRecord) -> None:
        for outlet in self._apart:
            outlet.queue(record)

    def _write_in_loop(self, record: CaptureRecord) -> None:
        for outlet in self._in_loop:
            outlet.write(record)

    def _is_forked(self) -> bool:
        """Return whether this is a copy in another process: locks may be held there by threads it lacks."""
        return os.getpid() != self._process

    def _say_unfinished(self, who: str, background: Background[CaptureRecord]) -> None:
        left = background.waiting
        rest = f"; {left} records are left" if left else ""
        self.problems.note(f"{who} has not finished after {self._closing_seconds:g} s{rest}")


class _Outlet:
    """One sink. What it raises is noted, and then it gets nothing more; a record it refuses is counted."""

    def __init__(self, name: str, sink: Sink, problems: Problems, most_waiting: int) -> None:
        self.name = name
        self.belongs_to_caller = bool(getattr(sink, "belongs_to_caller", False))
        self.background = Background(name, self.write, self.close, most_waiting)
        self._sink = sink
        self._problems = problems
        self._overrun = self._refused = 0  # each is written by one thread
        self._has_failed = False

    @property
    def dropped(self) -> int:
        return self._overrun + self._refused

    def open(self, run: RunContext) -> None:
        """Open the sink; SinkUnavailable is raised, because nothing has begun yet."""
        try:
            self._sink.open(run)
        except (SinkUnavailable, KeyboardInterrupt):
            self._has_failed = True
            raise
        except BaseException as error:  # noqa: BLE001 - a sink may raise anything
            self._fail(error)

    def queue(self, record: CaptureRecord) -> None:
        if not self._has_failed and not self.background.put(record):
            self._overrun += 1

    def write(self, record: CaptureRecord) -> None:
        if self._has_failed:
            return
        try:
            self._sink.write(record)
            if not self.belongs_to_caller:
                # One of the caller's may have to ask another process, and the loop would wait for it.
                self._sink.flush()
        except OptionError as error:
            self._refused += 1
            self._problems.note(f"the sink {self.name} refused a record: {_describe(error)}")
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a sink may raise anything
            self._fail(error)
        for problem in getattr(self._sink, "problems", ()):
            self._problems.note(problem)

    def close(self) -> None:
        """Close the sink in any case, and log how to look at what it wrote."""
        try:
            for line in self._sink.close(not self._has_failed):
                _log.info("fno-telemetry: to look at what was recorded: %s", line)
        except BaseException as error:  # noqa: BLE001 - a sink may raise anything
            if not self._has_failed:
                self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._has_failed = True
        self._problems.note(f"the sink {self.name} failed: {_describe(error)}")


def _describe(error: BaseException) -> str:
    text = str(error) if isinstance(error, TelemetryError) else describe_error(error)
    return to_one_line(text, _LONGEST_REASON)


def _open_all(outlets: Iterable[_Outlet], run: RunContext) -> None:
    """Open every sink; when one is unavailable, close those that are open."""
    opened: list[_Outlet] = []
    for outlet in outlets:
        opened.append(outlet)
        try:
            outlet.open(run)
        except BaseException:
            for each in opened:
                each.close()
            raise


_open: set[Delivery] = set()


def _close_at_the_end(delivery: Delivery) -> None:
    """Have the end of the program close this, unless it was closed before."""
    _register_once()
    _open.add(delivery)


@cache
def _register_once() -> None:
    # Unlike those of atexit, these functions run while threads can still be started, and before W&B and
    # others close what they have open. Not a public interface.
    register = getattr(threading, "_register_atexit", atexit.register)
    register(_close_all)


def _close_all() -> None:
    for delivery in list(_open):
        delivery.close()
