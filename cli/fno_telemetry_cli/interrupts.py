"""Ctrl-C and SIGTERM: when they end a command, and what they let finish first."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does within the block; ignore further ones, since some programs send two."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    with _handled(signal.SIGTERM, interrupt):
        yield


def ignore_sigterm() -> None:
    """Let the program end by itself from here on."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


@contextlib.contextmanager
def finish_first(was_interrupted: bool = False) -> Iterator[None]:
    """Let the block finish before Ctrl-C or SIGTERM ends the command.

    Ctrl-C after either of them, also after one that came before the block, ends it at once.
    """
    came = was_interrupted

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if came and number == signal.SIGINT:
            raise KeyboardInterrupt
        came = True

    with _handled(signal.SIGINT, note), _handled(signal.SIGTERM, note):
        yield
    if came:
        raise KeyboardInterrupt


@contextlib.contextmanager
def _handled(number: int, handler: "signal._HANDLER") -> Iterator[None]:
    """Have a signal handled so within the block; not in other threads than the main one, where none arrives.

    A signal that this process is to ignore, as one in the background ignores Ctrl-C, stays ignored.
    """
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(number) if is_main else signal.SIG_IGN
    if before in (signal.SIG_IGN, None):
        yield
        return
    signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)
