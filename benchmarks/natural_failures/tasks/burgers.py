"""Burgers' equation in one dimension: from the velocity at the start to the velocity with its shocks.

u_t + u u_x = ν u_xx on a periodic interval, pseudo-spectral with an integrating factor and RK4 [1].

[1] A.-K. Kassam, L. N. Trefethen, Fourth-order time-stepping for stiff PDEs, SIAM J. Sci. Comput. 2005.
"""

import numpy as np

from benchmarks.natural_failures.tasks.contract import Pairs

VISCOSITY, TIME, STEPS = 0.02, 0.6, 300


def make_burgers(rng: np.random.Generator, number: int, size: int) -> Pairs:
    """Return velocities in m/s at the start and at the end, each (number, 1, size)."""
    position = 2 * np.pi * np.arange(size) / size
    start = np.zeros((number, size))
    for wave in range(1, 6):
        phase = rng.uniform(0, 2 * np.pi, (number, 1))
        start += rng.standard_normal((number, 1)) / wave * np.sin(wave * position + phase)
    wave_number = np.fft.rfftfreq(size, 1 / size)
    kept = wave_number < size / 3  # the two-thirds rule
    step = TIME / STEPS
    half = np.exp(-VISCOSITY * wave_number**2 * step / 2)

    def rate(spectrum: np.ndarray) -> np.ndarray:
        field = np.fft.irfft(spectrum * kept, n=size)
        return -0.5j * wave_number * kept * np.fft.rfft(field**2)

    state = np.fft.rfft(start)
    for _ in range(STEPS):
        one = rate(state)
        two = rate(half * (state + step / 2 * one))
        three = rate(half * state + step / 2 * two)
        four = rate(half * (half * state + step * three))
        state = half**2 * state + step / 6 * (half**2 * one + 2 * half * (two + three) + four)
    end = np.fft.irfft(state, n=size)
    return start[:, None], end[:, None]
