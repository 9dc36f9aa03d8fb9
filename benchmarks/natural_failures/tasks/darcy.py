"""Darcy flow: from the permeability to the pressure, as in examples/darcy_flow.py, in physical units."""

import numpy as np

from benchmarks.natural_failures.tasks.contract import Pairs
from darcy_flow import make_permeability, solve


def make_darcy(rng: np.random.Generator, number: int, size: int) -> Pairs:
    """Return permeabilities of two values and pressures of about 0.01, each (number, 1, size, size)."""
    permeability = np.stack([make_permeability(size, rng) for _ in range(number)])
    pressure = np.stack([solve(field) for field in permeability])
    return permeability[:, None], pressure[:, None]
