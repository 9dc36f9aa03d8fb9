"""The tasks by name, and their samples, which are made once and kept."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.natural_failures.tasks.burgers import make_burgers
from benchmarks.natural_failures.tasks.contract import Task
from benchmarks.natural_failures.tasks.darcy import make_darcy
from benchmarks.natural_failures.tasks.deblurring import make_deblurring
from benchmarks.natural_failures.tasks.fisher import make_fisher
from benchmarks.natural_failures.tasks.holography import make_holography
from benchmarks.natural_failures.tasks.seismic import make_seismic
from benchmarks.natural_failures.tasks.vorticity import make_vorticity
from benchmarks.natural_failures.tasks.weather import make_weather

TRAINING_SAMPLES, TEST_SAMPLES = 128, 32

TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task("burgers", make_burgers, dimension=1, size=96, inputs=1, targets=1),
        Task("darcy", make_darcy, dimension=2, size=20, inputs=1, targets=1),
        Task("holography", make_holography, dimension=2, size=24, inputs=2, targets=2, is_complex=True),
        Task("weather", make_weather, dimension=2, size=24, inputs=4, targets=2),
        Task("fisher", make_fisher, dimension=3, size=12, inputs=1, targets=1),
        Task("deblurring", make_deblurring, dimension=2, size=24, inputs=1, targets=1),
        Task("vorticity", make_vorticity, dimension=2, size=24, inputs=1, targets=1, set_aside=True),
        Task("seismic", make_seismic, dimension=1, size=96, inputs=2, targets=1, set_aside=True),
    )
}


@dataclass(frozen=True)
class Samples:
    """Pairs in physical units, float32: inputs (N, C, *S) and targets (N, K, *S)."""

    x: torch.Tensor
    y: torch.Tensor


def load_samples(task: Task, seed: int, folder: Path) -> tuple[Samples, Samples]:
    """Return the samples for training and those for testing; `folder` keeps what was made once."""
    path = folder / "data" / f"{task.name}-{seed}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([zlib.crc32(task.name.encode()), seed])
        x, y = (
            pairs.astype(np.float32) for pairs in task.make(rng, TRAINING_SAMPLES + TEST_SAMPLES, task.size)
        )
        beside = path.with_suffix(f".{np.random.default_rng().integers(2**60)}.npz")
        np.savez(beside, x=x, y=y)
        beside.replace(path)
    with np.load(path) as stored:
        x, y = torch.from_numpy(stored["x"]), torch.from_numpy(stored["y"])
    return (
        Samples(x[:TRAINING_SAMPLES], y[:TRAINING_SAMPLES]),
        Samples(x[TRAINING_SAMPLES:], y[TRAINING_SAMPLES:]),
    )
