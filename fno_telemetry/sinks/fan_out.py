"""Hands each record to several sinks, the report first, so that one that fails takes no other with it."""

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from fno_telemetry.errors import ReportError, SinkUnavailable, TelemetryError
from fno_telemetry.findings import to_one_line
from fno_telemetry.records import CaptureRecord
from fno_telemetry.sinks.contract import RunContext, Sink

_LONGEST_REASON = 300


@dataclass(frozen=True)
class Outcome:
    """How each sink fared, "ok" or a one-line reason, and the lines that say how to look at what it wrote."""

    status: dict[str, str]
    lines: list[str]


@dataclass
class _Member:
    name: str
    sink: Sink
    reason: str | None = "not opened"
    error: Exception | None = None  # raised later: by strict, or because the report is required
    is_open: bool = False


class FanOut:
    """Opens, feeds and closes several sinks as if they were one.

    A sink that raises is named with the reason, closed and dropped; the others go on. `SystemExit` out of a
    sink counts as its failure. `strict` raises a sink's error too, after all others had their turn.
    The report is required: when the sink called `json` fails, that is a ReportError, and in `write` it is
    raised before any other sink has the record. Whoever opened a FanOut closes it also after an error; only
    when `open` raises, or on an interrupt, has it closed everything itself.
    """

    def __init__(self, sinks: Iterable[Sink], strict: bool = False) -> None:
        ordered = sorted(sinks, key=lambda sink: sink.name != "json")
        self._members = [_Member(name, sink) for name, sink in zip(_names(ordered), ordered, strict=True)]
        self._strict = strict
        self._outcome = Outcome({}, [])
        self._is_open = False

    def open(self, run: RunContext) -> None:
        """Open every sink; SinkUnavailable, after closing the opened ones, when one cannot be had at all."""
        self._outcome = Outcome({}, [])
        for member in self._members:
            member.reason = member.error = None
            # Before the call, so that one interrupted half-way is closed as well.
            member.is_open = True
            self._call(member, partial(member.sink.open, run))
            error = member.error
            if error and (self._must_raise(member) or isinstance(error, SinkUnavailable)):
                self._close_all(ok=False)
                raise error
        self._is_open = True

    def write(self, record: CaptureRecord) -> None:
        """Give the record to every sink that still stands."""
        self._each(lambda sink: sink.write(record))

    def flush(self) -> None:
        """Make sure that what was written survives a kill."""
        self._each(lambda sink: sink.flush())

    def close(self, ok: bool) -> Outcome:
        """Close every sink and say how each fared; closing again changes nothing and says the same."""
        standing = [member for member in self._members if member.is_open]
        self._close_all(ok)
        self._outcome.status.update({m.name: m.reason or "ok" for m in self._members})
        self._raise_first(standing)
        return self._outcome

    def _each(self, action: Callable[[Sink], object]) -> None:
        if not self._is_open:
            raise SinkUnavailable("The sinks are not open: call open(run) before write, and close last.")
        standing = [member for member in self._members if member.is_open]
        for member in standing:
            self._call(member, partial(action, member.sink))
            if member.sink.name == "json":
                self._raise_first([member])
        self._raise_first(standing)

    def _call(self, member: _Member, action: Callable[[], object]) -> None:
        """Run `action`; an error of the sink is noted and the sink closed, an interrupt closes them all."""
        try:
            action()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a sink does stays within it
            self._note(member, error)
            self._close_quietly(member)
        except BaseException:
            self._close_all(ok=False)
            raise

    def _note(self, member: _Member, error: Exception | SystemExit) -> None:
        told = isinstance(error, TelemetryError)
        member.reason = to_one_line(
            str(error) if told else f"{type(error).__name__}: {error}", _LONGEST_REASON
        )
        if member.sink.name == "json" and not isinstance(error, ReportError):
            member.error = ReportError(f"the report cannot be written: {member.reason}")
        elif isinstance(error, SystemExit):
            member.error = TelemetryError(f"The {member.name} sink tried to end the program: {error}")
        else:
            member.error = error
        if member.error is not error:
            member.error.__cause__ = error

    def _must_raise(self, member: _Member) -> bool:
        return self._strict or member.sink.name == "json"

    def _raise_first(self, members: list[_Member]) -> None:
        for member in members:
            if member.error and self._must_raise(member):
                error, member.error = member.error, None
                raise error

    def _close_all(self, ok: bool) -> None:
        """Close what is open, whatever happens meanwhile; an interrupt turns the rest into failures."""
        self._is_open = False
        interrupt: BaseException | None = None
        for member in self._members:
            if not member.is_open:
                continue
            member.is_open = False
            try:
                self._outcome.lines.extend(member.sink.close(ok and interrupt is None))
            except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a sink does stays within it
                self._note(member, error)
            except BaseException as error:  # noqa: BLE001 - raised again once the others are closed
                interrupt = interrupt or error
        if interrupt:
            raise interrupt

    def _close_quietly(self, member: _Member) -> None:
        """Close a sink that has failed: what else goes wrong with it is no news."""
        member.is_open = False
        with contextlib.suppress(Exception, SystemExit):
            self._outcome.lines.extend(member.sink.close(False))


def _names(sinks: list[Sink]) -> list[str]:
    """Return a name for each sink: its own, and for a second one of a kind `tensorboard-2`."""
    seen: dict[str, int] = {}
    names = []
    for sink in sinks:
        seen[sink.name] = seen.get(sink.name, 0) + 1
        names.append(sink.name if seen[sink.name] == 1 else f"{sink.name}-{seen[sink.name]}")
    return names
