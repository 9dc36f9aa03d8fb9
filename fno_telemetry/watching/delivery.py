"""Hands records to sinks without holding up a training loop, and without raising anything into it."""

import contextlib
import logging
import queue
import threading
from collections.abc import Iterable
from pathlib import Path

from fno_telemetry.records import CaptureRecord
from fno_telemetry.sinks.contract import RunContext, Sink
from fno_telemetry.sinks.fan_out import FanOut
from fno_telemetry.wording import describe_error

_log = logging.getLogger("fno_telemetry")

MOST_WAITING = 16
"""Records that wait for slow sinks; further ones are dropped and counted."""

CLOSING_SECONDS = 60.0
"""How long `close` waits for slow sinks."""


class Delivery:
    """Writes into dashboards that the caller owns at once, in order, and into all other sinks on a thread.

    Errors of sinks are logged once each; what did not get through is counted in `dropped`.
    """

    def __init__(
        self, sinks: Iterable[Sink], folder: str | Path = ".", most_waiting: int = MOST_WAITING
    ) -> None:
        given = list(sinks)
        self.dropped = 0
        self.problems: list[str] = []
        self._context = RunContext(Path(folder), series=True)
        callers = [sink for sink in given if getattr(sink, "belongs_to_caller", False)]
        self._at_once = FanOut(callers)
        self._slow = FanOut([sink for sink in given if sink not in callers])
        self._at_once.open(self._context)
        self._slow.open(self._context)
        self._waiting: queue.Queue[CaptureRecord | None] = queue.Queue(most_waiting)
        self._thread: threading.Thread | None = None
        self._has_slow = len(callers) < len(given)

    def deliver(self, record: CaptureRecord) -> None:
        """Write a record where the caller's own rows go, and queue it for the other sinks."""
        self._write(self._at_once, record)
        if not self._has_slow:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="fno-telemetry", daemon=True)
            self._thread.start()
        try:
            self._waiting.put_nowait(record)
        except queue.Full:
            self.dropped += 1

    def close(self, seconds: float = CLOSING_SECONDS) -> None:
        """Wait until the waiting records are written, but not longer than this; then close the sinks."""
        if self._thread is not None:
            with contextlib.suppress(queue.Full):
                self._waiting.put(None, timeout=seconds)
            self._thread.join(seconds)
            if self._thread.is_alive():
                # It is a daemon: the process can end while a sink still hangs.
                self._note(
                    f"sinks still write after {seconds:.0f} s; {self._waiting.qsize()} records are left"
                )
                self._close(self._at_once)
                return
        self._close(self._slow)
        self._close(self._at_once)
        if self.dropped:
            self._note(f"{self.dropped} records were dropped, because the sinks were slower than the loop")

    def _run(self) -> None:
        while (record := self._waiting.get()) is not None:
            self._write(self._slow, record)

    def _write(self, sinks: FanOut, record: CaptureRecord) -> None:
        try:
            sinks.write(record)
            sinks.flush()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - nothing of a sink reaches the loop
            self._note(describe_error(error))
        for name, reason in sinks.failures().items():
            self._note(f"the sink {name} failed: {reason}")

    def _close(self, sinks: FanOut) -> None:
        try:
            outcome = sinks.close(ok=True)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - nothing of a sink reaches the loop
            self._note(describe_error(error))
            return
        for line in outcome.lines:
            _log.info("%s", line)

    def _note(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)
            _log.warning("fno-telemetry: %s", problem)
