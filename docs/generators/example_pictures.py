"""Writes the pictures of README, docs/pictures.md and docs/dashboards.md: a spike breaks a training.

    python docs/generators/example_pictures.py

The network and the training are those of `make demo`; it takes a minute.
"""

import sys
import tempfile
from pathlib import Path

import torch

import fno_telemetry as ft
from fno_telemetry import pictures

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "pictures"
SHOWN = ("curves", "steps-rms", "losses", "sizes", "spectrum", "spectrum-difference")
HEALTHY = 30
"""A step before the spike."""


def main() -> None:
    """Train, and write the pictures."""
    sys.path.insert(0, str(ROOT / "examples"))
    from simulate_diffraction import simulate
    from train_until_collapse import train

    amplitudes = torch.from_numpy(simulate(16, 64, seed=0)).unsqueeze(1)
    with tempfile.TemporaryDirectory() as folder:
        train(amplitudes, Path(folder))
        records = ft.load_history(Path(folder) / "history.jsonl")
    findings = ft.diagnose(*records)
    healthy = next(record for record in records if record.step == HEALTHY)
    drawn = [
        pictures.curves_by_step(records, findings),
        *pictures.pictures_of_series(records, findings),
        *pictures.pictures_of(healthy),
        *pictures.pictures_of_pair(healthy, records[-1], (f"step {HEALTHY}", "after the spike")),
    ]
    for picture in drawn:
        if picture is not None and picture.name in SHOWN:
            picture.save(FOLDER / f"{picture.name}.svg", "auto")


if __name__ == "__main__":
    main()
