import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fno_telemetry_cli.app import main
from support import ready_python

NETWORKS = Path(__file__).parents[1] / "support"


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document that stdout holds."""
        return json.loads(self.out)


Run = Callable[..., Result]


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "train.npz"
    rng = np.random.default_rng(0)
    np.savez(path, diffraction=rng.random((3, 16, 16), dtype=np.float32))
    return path


@pytest.fixture
def folder(tmp_path: Path, samples: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with `train.npz` in it; the test's networks can be imported from it."""
    (tmp_path / "train.npz").write_bytes(samples.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(NETWORKS), *sys.path])
    monkeypatch.delenv("COLUMNS", raising=False)
    return tmp_path


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Call the command in this process, which is quick; everything it prints is caught at the descriptors."""

    def call(*arguments: object) -> Result:
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Result(int(end.value.code or 0), out, err)

    return call


@pytest.fixture
def spawn(folder: Path) -> Run:
    """Call the command in a process of its own; with `anew` or flags for `python`, start it from nothing."""

    def call(
        *arguments: object, anew: bool = False, python: tuple[str, ...] = (), **environment: str | None
    ) -> Result:
        given = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        given.pop("COLUMNS", None)
        program = sys.executable if anew or python else ready_python.python()
        done = subprocess.run(
            [program, *python, "-m", "fno_telemetry_cli", *map(str, arguments)],
            capture_output=True,
            env={key: value for key, value in given.items() if value is not None},
            timeout=120,
        )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    return call


@pytest.fixture(scope="session")
def small() -> tuple[str, ...]:
    """What makes any built-in network small."""
    return ("--set", "hidden_channels=4", "--set", "modes=3")


@pytest.fixture(scope="session")
def tiny(small: tuple[str, ...]) -> tuple[str, ...]:
    """What makes the network `fno` as small as can be."""
    return (*small, "--set", "fno_blocks=1", "--set", "cnn_blocks=1")


@pytest.fixture(scope="session")
def capture_once(samples: Path, small: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captured") / "out"
    with pytest.raises(SystemExit) as end:
        main(["capture", "-q", "--input", str(samples), "--output", str(folder), *small])
    assert end.value.code == 0
    return folder


@pytest.fixture
def captured(folder: Path, capture_once: Path) -> Path:
    """A folder with a report of the network `fno`."""
    return Path(shutil.copytree(capture_once, "out"))
