"""Darcy flow: from the permeability to the pressure, as in examples/darcy_flow.py, in physical units."""

import numpy as np

from benchmarks.natural_failures.tasks.contract import Pairs
from benchmarks.natural_failures.tasks.random_fields import smooth_fields
from darcy_flow import HIGH, LOW, solve


def make_darcy(rng: np.random.Generator, number: int, size: int) -> Pairs:
    """Return permeabilities of two values and pressures of about 0.01, each (number, 1, size, size)."""
    # Fields without a mean, so that each sample has both values.
    permeability = np.where(smooth_fields(rng, number, size, 4.0) > 0, HIGH, LOW)
    return permeability[:, None], np.stack([solve(field) for field in permeability])[:, None]
