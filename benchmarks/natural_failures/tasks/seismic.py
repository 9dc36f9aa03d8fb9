"""Waves in an uneven medium: from displacement and speed of sound to the displacement a while later.

u_tt = (c² u_x)_x on a periodic interval, second-order differences in space and time [1], at rest first.

[1] B. Gustafsson, H.-O. Kreiss, J. Oliger, Time Dependent Problems and Difference Methods, Wiley 1995.
"""

import numpy as np

from benchmarks.natural_failures.tasks.contract import Pairs

TIME, FINER = 0.12, 8
SPEED, SPREAD = 1.0, 0.35  # of the medium, km/s
PULSES = 4


def make_seismic(rng: np.random.Generator, number: int, size: int) -> Pairs:
    """Return (number, 2, size) of displacement in mm and speed in m/s, and the displacement at the end."""
    points = FINER * size
    position = np.arange(points) / points
    start = np.zeros((number, points))
    for _ in range(PULSES):
        centre, width = rng.uniform(0, 1, (number, 1)), rng.uniform(0.015, 0.04, (number, 1))
        distance = (position - centre + 0.5) % 1 - 0.5
        start += rng.standard_normal((number, 1)) * np.exp(-((distance / width) ** 2) / 2)
    medium = np.zeros((number, points))
    for wave in range(1, 5):
        phase = rng.uniform(0, 2 * np.pi, (number, 1))
        medium += rng.standard_normal((number, 1)) / wave * np.sin(2 * np.pi * wave * position + phase)
    speed = SPEED * np.exp(SPREAD * medium / medium.std())
    steps = int(np.ceil(TIME * speed.max() * points / 0.8))
    step = TIME / steps
    between = ((speed + np.roll(speed, -1, axis=1)) / 2) ** 2  # c² to the right of each point

    def force(field: np.ndarray) -> np.ndarray:
        flux = between * (np.roll(field, -1, axis=1) - field)
        return (flux - np.roll(flux, 1, axis=1)) * points**2

    before, now = start, start + step**2 / 2 * force(start)
    for _ in range(steps - 1):
        before, now = now, 2 * now - before + step**2 * force(now)
    inputs = np.stack([start, 1000 * speed], axis=1)[..., ::FINER]
    return inputs, now[:, None, ::FINER]
