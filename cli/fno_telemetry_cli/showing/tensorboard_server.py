"""The real TensorBoard server on the loopback address, until the user stops it."""

import contextlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

import fno_telemetry as ft
from fno_telemetry.sinks.tensorboard import start_page
from fno_telemetry_cli.reports_in import EVERY_STAGE, captures_below, reports_below
from fno_telemetry_cli.showing.terminal import keep_stdout_clean, print_notes, print_results

_ADDRESS = re.compile(r"http://\S+?/(?=\s|$)")
_START_SECONDS = 60
_STOP_SECONDS = 5
_MOST_DRAWN = 4  # reports; of more, nobody waits for the pictures
_LAST_WORDS_SECONDS = 0.2


def serve(path: Path, port: int, quiet: bool) -> None:
    """Start TensorBoard for a report or a capture's folder, print its address, wait until it is stopped."""
    if find_spec("tensorboard") is None:
        raise ft.MissingExtra(
            "view --tensorboard needs tensorboard: pip install 'fno-telemetry[tensorboard]'."
        )
    with _signals_as_interrupts(), log_dir(path) as folder, _Server(folder, port) as server:
        address = server.address()
        print_results(f"TensorBoard: {address}{start_page.PATH}")
        if not quiet:
            without = [str(each) for each in captures_below(path) if folder == path and not has_events(each)]
            print_notes([f"not shown, without TensorBoard files: {', '.join(without)}"] if without else [])
            print_notes(["Ctrl-C stops it."])
        with contextlib.suppress(KeyboardInterrupt):
            server.wait()


@contextlib.contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """Let other requests to end do what Ctrl-C does, so that the server is stopped on every way out."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    wanted = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, interrupt) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def log_dir(path: Path) -> Iterator[Path]:
    """Yield a folder with event files: those of the capture, else made from the reports for now."""
    for folder in (path / "tensorboard", path):
        if has_events(folder):
            yield folder
            return
    reports, _ = reports_below(path, EVERY_STAGE)
    with tempfile.TemporaryDirectory(prefix="fno-telemetry-") as made:
        with keep_stdout_clean():
            for file, record in reports.items():
                # Of several captures, each has a folder of its own.
                place = file.relative_to(path) if path.is_dir() else Path(file.name)
                events = Path(made) / place.with_suffix("")
                sink = ft.TensorBoard(log_dir=events, pictures=len(reports) <= _MOST_DRAWN)
                sink.open(ft.RunContext(Path(made)))
                sink.write(record)
                sink.close(ok=True)
        yield Path(made)


def has_events(folder: Path) -> bool:
    """Whether there are event files in the folder, at any depth."""
    return folder.is_dir() and any(folder.rglob("events.out.tfevents.*"))


class _Server:
    """A TensorBoard process, stopped when the `with` block ends."""

    def __init__(self, folder: Path, port: int) -> None:
        # -P: a tensorboard.py in the working folder is not the one that is meant.
        self._command = [sys.executable, "-P", "-m", start_page.__name__, "--logdir", str(folder)]
        self._command += ["--host", "127.0.0.1", "--port", str(port), "--reload_interval", "5"]
        self._words: deque[str] = deque(maxlen=20)

    def __enter__(self) -> "_Server":
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        # What it says has to be read for as long as it runs, or a full pipe would stop it.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self._process.kill()
            self._process.wait()
        self._reader.join(_STOP_SECONDS)
        if self._process.stderr is not None and not self._reader.is_alive():
            self._process.stderr.close()

    def address(self) -> str:
        """Return the address that the server prints; SinkUnavailable with its last words when it gives up."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            for line in list(self._words):
                if (match := _ADDRESS.search(line)) is not None:
                    return match[0]
            time.sleep(0.05)
        raise ft.SinkUnavailable(f"TensorBoard did not start: {self._last_words()}")

    def wait(self) -> None:
        """Return never, but raise SinkUnavailable when the server ends by itself."""
        self._process.wait()
        raise ft.SinkUnavailable(f"TensorBoard stopped by itself: {self._last_words()}")

    def _read(self) -> None:
        for line in self._process.stderr or ():
            self._words.append(line)

    def _last_words(self) -> str:
        self._reader.join(_LAST_WORDS_SECONDS)
        said = (line.strip() for line in reversed(self._words))
        return next((line for line in said if line), "it said nothing")
