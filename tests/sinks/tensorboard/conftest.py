"""Fixtures of all tests of the TensorBoard sink."""

from pathlib import Path

import pytest

from fno_telemetry.sinks.contract import RunContext


@pytest.fixture
def run(tmp_path: Path) -> RunContext:
    return RunContext(tmp_path, experiment="demo")


@pytest.fixture
def folder(run: RunContext) -> Path:
    return run.folder / "tensorboard" / "demo"
