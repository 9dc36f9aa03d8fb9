"""The scripts in `examples/` that watch a training run, and write what they say."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

import darcy_flow
import fno_telemetry as ft
from support import ready_python
from support.documents import ROOT


def run(name: str, output: Path) -> None:
    done = subprocess.run(
        [ready_python.python(), str(ROOT / "examples" / name), str(output), "--epochs", "3"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=output.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["watch_plain_loop.py", "watch_neuralop.py"])
def test_an_example_writes_a_report_of_each_due_step(name: str, tmp_path: Path, read_events) -> None:
    run(name, tmp_path / "out")
    reports = sorted(path for path in (tmp_path / "out").glob("*.json") if ".val." not in path.name)
    assert [path.name for path in reports] == [f"activation_report.step{step}.json" for step in (0, 20)]
    report = ft.load_report(reports[1])
    assert report.stage == "train" and report.accuracy is not None and report.blocks
    events = read_events(tmp_path / "out" / "tensorboard")
    assert [step for step, _ in events["spectral_share/" + keys_of(report)]] == [0, 20]


def keys_of(report: ft.CaptureRecord) -> str:
    return report.blocks[0].name.replace(".", "/")


@pytest.mark.parametrize(
    ("name", "folder", "steps"),
    [
        ("watch_lightning.py", "lightning_logs/version_0", [0, 20]),
        ("watch_accelerate.py", "darcy", [0, 10]),
    ],
)
def test_an_example_writes_into_the_dashboard_of_the_training(
    name: str, folder: str, steps: list[int], tmp_path: Path, read_events
) -> None:
    run(name, tmp_path / "out")
    assert [step for step, _ in read_events(tmp_path / "out" / folder)["rms/lifting"]] == steps


def test_the_pressure_fulfils_the_equation_with_a_constant_permeability() -> None:
    size = 32
    found = darcy_flow.solve(np.full((size, size), 2.0))
    x = (np.arange(size) + 0.5) / size
    odd = np.arange(1, 200, 2)
    waves = np.sin(np.pi * odd[:, None] * x)
    weights = 16 / np.pi**4 / (odd[:, None] * odd * (odd[:, None] ** 2 + odd**2)) / 2
    series = np.einsum("ab,ax,by->xy", weights, waves, waves)
    assert np.abs(found - series).max() < 5e-3 * series.max()
