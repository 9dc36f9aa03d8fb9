"""Weather-like advection: temperature and pressure are carried by a wind; four channels of different units.

q_t + v · ∇q = κ Δq on a periodic square, spectral derivatives and RK4; the wind has no divergence and does
not change.
"""

import numpy as np

from benchmarks.natural_failures.tasks.contract import Pairs
from benchmarks.natural_failures.tasks.random_fields import smooth_fields

STEPS = 10
DISPLACEMENT = 1.5  # of the wind's rms, in cells
WIND = 8.0  # m/s, rms


def make_weather(rng: np.random.Generator, number: int, size: int) -> Pairs:
    """Return temperature (K), pressure (Pa) and wind (m/s), four channels; and the first two later."""
    temperature, pressure = smooth_fields(rng, number, size, 3.0), smooth_fields(rng, number, size, 4.0)
    stream = smooth_fields(rng, number, size, 5.0)
    wave = 2j * np.pi * np.fft.fftfreq(size)
    along = (wave[:, None], wave[None, : size // 2 + 1])

    def gradient(field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        spectrum = np.fft.rfft2(field)
        return tuple(np.fft.irfft2(spectrum * factor, s=(size, size)) for factor in along)

    north, east = gradient(stream)
    scale = np.sqrt((north**2 + east**2).mean(axis=(1, 2), keepdims=True))
    wind = (east / scale, -north / scale)  # along rows and columns, rms 1
    diffusion = 0.02 * (along[0] ** 2 + along[1] ** 2).real

    def rate(field: np.ndarray) -> np.ndarray:
        rows, columns = gradient(field)
        spread = np.fft.irfft2(np.fft.rfft2(field) * diffusion, s=(size, size))
        return -DISPLACEMENT * (wind[0] * rows + wind[1] * columns) + spread

    later = []
    for field in (temperature, pressure):
        step = 1 / STEPS
        for _ in range(STEPS):
            one = rate(field)
            two = rate(field + step / 2 * one)
            three = rate(field + step / 2 * two)
            field = field + step / 6 * (one + 2 * two + 2 * three + rate(field + step * three))
        later.append(field)
    inputs = (285 + 12 * temperature, 101_000 + 800 * pressure, WIND * wind[0], WIND * wind[1])
    return np.stack(inputs, 1), np.stack((285 + 12 * later[0], 101_000 + 800 * later[1]), 1)
