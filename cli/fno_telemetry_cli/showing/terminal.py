"""Where output goes: results to stdout, all else to stderr, whatever other code prints."""

import contextlib
import ctypes
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from fno_telemetry.wording import is_printable, to_encodable, to_one_line, to_printable

_STDOUT, _STDERR = 1, 2  # descriptors
_PIPED_WIDTH = 160  # columns for tables that go to a file or a pipe
_BLOCKS = "▁█▏×"  # what bars are made of, and a sign that becomes another one where it cannot be written


@dataclass(frozen=True)
class Screen:
    """What results are shown on: its size, and whether it draws blocks; no height where it is no terminal."""

    width: int
    height: int | None = None
    takes_blocks: bool = False

    @property
    def is_terminal(self) -> bool:
        """Whether somebody looks at it, and not a file or another program."""
        return self.height is not None


class ReaderLeft(Exception):
    """Nobody reads our standard output any longer."""


class _CleanConsole(Console):
    """Sends nothing to the terminal that it would obey, wherever a text comes from."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        encoding = self.encoding
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
                continue
            text = segment.text
            if not is_printable(text):
                # A text of several lines is no name; names are printable before they get here.
                text = "\n".join(map(to_printable, text.split("\n")))
            yield Segment(to_encodable(text, encoding), segment.style)


class _ResultConsole(_CleanConsole):
    def on_broken_pipe(self) -> None:
        raise ReaderLeft


def stdout_console() -> Console:
    """A console for results; wide when stdout is no terminal. It takes text as it is, without markup."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPED_WIDTH
    return _ResultConsole(width=width, markup=False, emoji=False, highlight=False)


def screen_of_stdout() -> Screen:
    """Return what results are shown on; a pipe or a file has neither height nor bars."""
    console = stdout_console()
    if not sys.stdout.isatty():
        return Screen(console.width)
    is_dumb = os.environ.get("TERM", "").lower() in ("dumb", "unknown")
    return Screen(
        console.width, console.height, not is_dumb and to_encodable(_BLOCKS, console.encoding) == _BLOCKS
    )


def stderr_console() -> Console:
    """A console for progress and notes."""
    return _CleanConsole(stderr=True, markup=False, emoji=False, highlight=False)


def print_results(*results: RenderableType) -> None:
    """Print results to stdout; a string is one line."""
    console = stdout_console()
    for result in results:
        console.print(to_printable(result) if isinstance(result, str) else result)


def print_lines(lines: Iterable[str]) -> None:
    """Print lines for copying to stdout, each whole, however narrow the terminal."""
    console = stdout_console()
    for line in lines:
        console.print(to_printable(line), soft_wrap=True)


def print_json(document: Mapping[str, Any]) -> None:
    """Print one strict JSON document, in ASCII, which every terminal and pipe can take; NaN is null."""
    from fno_telemetry.report import as_plain

    try:
        sys.stdout.write(json.dumps(as_plain(document), allow_nan=False, indent=1) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise ReaderLeft from None


def print_notes(lines: Iterable[str], style: str = "") -> None:
    """Print to stderr what a reader should know about the results, each line whole for copying."""
    console = stderr_console()
    for line in lines:
        console.print(to_printable(line), style=style, soft_wrap=True)


def print_error(message: str) -> None:
    """Print the one line that an error is."""
    with contextlib.suppress(OSError):
        line = to_encodable(to_one_line(message), getattr(sys.stderr, "encoding", None) or "utf-8")
        sys.stderr.write(f"fno-telemetry: {line}\n")
        sys.stderr.flush()


def make_streams_usable() -> None:
    """Open standard streams that the caller closed, and let all of them write any text."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # Else the next file that is opened would get the stream's descriptor.
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - open to the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


@contextlib.contextmanager
def keep_stdout_clean() -> Iterator[None]:
    """Send to stderr what anything prints within the block, C libraries and child processes included."""
    _flush_stdout()
    descriptors = _stdout_descriptors()
    saved = {descriptor: os.dup(descriptor) for descriptor in descriptors}
    try:
        with contextlib.redirect_stdout(sys.stderr):
            _point(descriptors, _STDERR)
            yield
    finally:
        _flush_stdout()
        for descriptor, copy in saved.items():
            os.dup2(copy, descriptor)
            os.close(copy)


def point_stdout_at_stderr() -> None:
    """Send to stderr whatever is still printed before the program ends."""
    _flush_stdout()
    _point(_stdout_descriptors(), _STDERR)


def drop_stdout() -> None:
    """Discard what is still to be printed, so that the interpreter's own last flush succeeds."""
    with Path(os.devnull).open("w") as nowhere:
        _point(_stdout_descriptors(), nowhere.fileno())


def _stdout_descriptors() -> list[int]:
    """The descriptors of stdout: C's, and Python's if it has another."""
    found = {_STDOUT}
    with contextlib.suppress(OSError, ValueError):
        found.add(sys.stdout.fileno())
    return [descriptor for descriptor in found if _is_open(descriptor)]


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _point(descriptors: Iterable[int], target: int) -> None:
    for descriptor in descriptors:
        os.dup2(target, descriptor)


def _flush_stdout() -> None:
    """Write out what Python and C hold back, so that it goes where stdout points now."""
    for stream in (sys.stdout, sys.__stdout__):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()  # type: ignore[union-attr]  # __stdout__ may be None
    with contextlib.suppress(OSError, TypeError, AttributeError):  # where C's library has no such handle
        ctypes.CDLL(None).fflush(None)
