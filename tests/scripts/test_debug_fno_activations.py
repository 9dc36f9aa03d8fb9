"""The earlier script's line keeps working."""

import json
import subprocess
from pathlib import Path

import numpy as np

from support import ready_python

SCRIPT = Path(__file__).parents[2] / "scripts" / "debug_fno_activations.py"


def test_the_earlier_line_writes_a_report_and_replaces_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "train.npz", diffraction=rng.random((3, 16, 16), dtype=np.float32))
    line = [
        *(ready_python.python(), str(SCRIPT)),
        *("--input", str(tmp_path / "train.npz"), "--output", str(tmp_path / "out")),
        *("--architecture", "fno", "--batch-size", "1", "--max-samples", "8", "--device", "cpu"),
    ]
    for _ in range(2):
        done = subprocess.run(line, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "activation_report.json").read_text())
    assert report["layers"]
    assert report["summary"]["n_samples"] == 3
    assert len(report["layers"]["lifter/low_freq_ratio"]) == 3
