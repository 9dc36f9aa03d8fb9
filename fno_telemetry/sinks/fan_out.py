"""Gives each record to several sinks, so that one that fails does not stop the others."""

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from fno_telemetry.errors import OptionError, ReportError, SinkUnavailable, TelemetryError
from fno_telemetry.records import CaptureRecord
from fno_telemetry.sinks.contract import RunContext, Sink
from fno_telemetry.wording import to_one_line

_LONGEST_REASON = 300


@dataclass(frozen=True)
class Outcome:
    """For each sink "ok" or the reason of its failure in one line; and how to look at what was written."""

    status: dict[str, str]
    lines: list[str]


@dataclass
class _Member:
    name: str
    sink: Sink
    is_required: bool
    reason: str | None = "not opened"
    error: Exception | None = None  # raised later: with `strict`, or because the sink is required
    is_open: bool = False


class FanOut:
    """Opens, feeds and closes several sinks as if they were one.

    A sink that raises is named with the reason, closed and dropped; the others go on. `SystemExit` out of a
    sink counts as its failure. With `strict`, a sink's error is raised after all other sinks have had the
    call.

    `required` names a sink without which a run is worth nothing, such as "json": it comes first in every
    call, and when it fails that is a ReportError, raised before any other sink has the record.

    Whoever opens a FanOut also closes it after an error; only when `open` raises, or on an interrupt, has it
    closed every sink itself. Raises OptionError when no sink is called `required`, and for what is no sink.
    """

    def __init__(self, sinks: Iterable[Sink], *, required: str | None = None, strict: bool = False) -> None:
        ordered = sorted(check_sinks(sinks), key=lambda sink: sink.name != required)
        if required is not None and required not in [sink.name for sink in ordered]:
            names = ", ".join(name_sinks(ordered)) or "none"
            raise OptionError(f"`required` {required!r}: no sink has this name; the names are {names}")
        self._members = [
            _Member(name, sink, sink.name == required)
            for name, sink in zip(name_sinks(ordered), ordered, strict=True)
        ]
        self._strict = strict
        self._outcome = Outcome({}, [])
        self._is_open = False

    def open(self, run: RunContext) -> None:
        """Open every sink; SinkUnavailable when one cannot be opened, after closing the others."""
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
        """Give the record to every sink that has not failed."""
        self._each(lambda sink: sink.write(record))

    def keep(self, record: CaptureRecord) -> None:
        """Give the record to the `required` sink alone, before `write` gives it, or one made of it, to all.

        So a record is safe while the others wait, for example for a diagnosis of the whole series.
        """
        self._each(lambda sink: sink.write(record), only_required=True)

    def flush(self) -> None:
        """Make sure that what was written survives a kill."""
        self._each(lambda sink: sink.flush())

    def close(self, ok: bool) -> Outcome:
        """Close every sink and return the outcome; closing again returns the same."""
        running = [member for member in self._members if member.is_open]
        self._close_all(ok)
        self._outcome.status.update({m.name: m.reason or "ok" for m in self._members})
        self._raise_first(running)
        return self._outcome

    def _each(self, action: Callable[[Sink], object], only_required: bool = False) -> None:
        if not self._is_open:
            raise SinkUnavailable("The sinks are not open: call open(run) before write, and close last.")
        running = [m for m in self._members if m.is_open and (m.is_required or not only_required)]
        for member in running:
            self._call(member, partial(action, member.sink))
            if member.is_required:
                self._raise_first([member])
        self._raise_first(running)

    def _call(self, member: _Member, action: Callable[[], object]) -> None:
        """Run `action`; after an error of the sink close it, after an interrupt close all of them."""
        try:
            action()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a sink may raise anything
            self._note(member, error)
            self._close_quietly(member)
        except BaseException:
            self._close_all(ok=False)
            raise

    def _note(self, member: _Member, error: Exception | SystemExit) -> None:
        on_purpose = isinstance(error, TelemetryError)
        text = str(error) if on_purpose else f"{type(error).__name__}: {error}"
        member.reason = to_one_line(text, _LONGEST_REASON)
        if member.is_required and not isinstance(error, ReportError):
            member.error = ReportError(f"the {member.name} sink is required, and it failed: {member.reason}")
        elif isinstance(error, SystemExit):
            member.error = TelemetryError(f"The {member.name} sink tried to end the program: {error}")
        else:
            member.error = error
        if member.error is not error:
            member.error.__cause__ = error

    def _must_raise(self, member: _Member) -> bool:
        return self._strict or member.is_required

    def _raise_first(self, members: list[_Member]) -> None:
        for member in members:
            if member.error and self._must_raise(member):
                error, member.error = member.error, None
                raise error

    def _close_all(self, ok: bool) -> None:
        """Close every open sink in any case; after an interrupt, the rest are closed as failed."""
        self._is_open = False
        interrupt: BaseException | None = None
        for member in self._members:
            if not member.is_open:
                continue
            member.is_open = False
            try:
                self._outcome.lines.extend(member.sink.close(ok and interrupt is None))
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a sink may raise anything
                self._note(member, error)
            except BaseException as error:  # noqa: BLE001 - raised again once the others are closed
                interrupt = interrupt or error
        if interrupt:
            raise interrupt

    def _close_quietly(self, member: _Member) -> None:
        """Close a sink that has failed: a further error tells nothing new."""
        member.is_open = False
        with contextlib.suppress(Exception, SystemExit):
            self._outcome.lines.extend(member.sink.close(False))


def check_sinks(sinks: object) -> list[Sink]:
    """Return the sinks as a list; OptionError for what is no sink."""
    if not isinstance(sinks, Iterable) or isinstance(sinks, str):
        raise OptionError(f"`sinks` is a {type(sinks).__name__}: a list of sinks was expected")
    given = list(sinks)
    for sink in given:
        if not all(hasattr(sink, part) for part in ("name", "open", "write", "flush", "close")):
            kind = type(sink).__name__
            raise OptionError(f"`sinks` holds a {kind}: sinks were expected, such as ft.JsonFile()")
    return given


def name_sinks(sinks: list[Sink]) -> list[str]:
    """Return a name for each sink: its own, and for a second one of a kind `tensorboard-2`."""
    seen: dict[str, int] = {}
    names = []
    for sink in sinks:
        seen[sink.name] = seen.get(sink.name, 0) + 1
        names.append(sink.name if seen[sink.name] == 1 else f"{sink.name}-{seen[sink.name]}")
    return names
