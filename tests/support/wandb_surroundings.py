"""Keeps W&B to a test's own folder: nothing of the machine's is read or written, and nothing left running."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import ready_python, wandb_stand_in

NOWHERE = "http://127.0.0.1:9"
"""The server of a test that has none: W&B's own one is never asked."""

KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "COVERAGE_PROCESS_START")

PROGRAM = """
from pathlib import Path
import fno_telemetry as ft
from fno_telemetry.sinks.kept_series import KeptSeries
from fno_telemetry.sinks.wandb.sink import WandbRun
from fno_telemetry.testing import example_record
record = example_record.example()
# Pictures take seconds for each run.
draws_pictures, KeptSeries.add = KeptSeries.add, lambda series, record: None

def capture(folder, sink, *records, between=lambda: None, others=()):
    sinks = ft.FanOut([ft.JsonFile(), sink, *others], required="json")
    sinks.open(ft.RunContext(Path(folder), experiment="demo"))
    for each in records:
        sinks.write(each)
        between()
    outcome = sinks.close(ok=True)
    print(outcome.status)
    print(*outcome.lines, sep="\\n")
"""
"""What a program of a test starts with."""


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return the variables for a process that knows nothing of W&B but what is given."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return kept | {"HOME": str(home), "WANDB_BASE_URL": NOWHERE} | more


def run_wandb(folder: Path, line: str, **more: str) -> str:
    """Run a command line of W&B's, such as `close` returns, in a folder; return what it prints."""
    [program, *arguments] = shlex.split(line)
    assert program == "wandb"
    done = subprocess.run(
        [str(Path(sys.executable).with_name(program)), *arguments],
        env=environment(folder / "home", **more),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to write into; W&B's process ends with the test, whatever happens."""
    import wandb

    wandb.teardown()
    for name in list(os.environ):
        if name.startswith("WANDB_") or name == "NETRC":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_BASE_URL", NOWHERE)
    (tmp_path / "home").mkdir()
    folder = tmp_path / "out"
    folder.mkdir()
    yield folder
    wandb.teardown()
    os.environ.pop("WANDB_SERVICE", None)


@pytest.fixture
def server(alone: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[wandb_stand_in.StandIn]:
    """A stand-in for the server, which W&B is set to, with credentials."""
    with wandb_stand_in.StandIn() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", wandb_stand_in.API_KEY)
        yield server


@pytest.fixture
def run_program(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run PROGRAM and more in a process of its own, without a terminal; killed after `timeout` seconds.

    With `anew` it starts from nothing, and in a session of its own.
    """

    def run(
        text: str, timeout: float = 120, anew: bool = False, **more: str
    ) -> subprocess.CompletedProcess[str]:
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        return subprocess.run(
            [sys.executable if anew else ready_python.python(), "-c", PROGRAM + text],
            env=environment(home, **more),
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            start_new_session=anew,
            check=False,
        )

    return run
