"""Two-dimensional flow: from the vorticity at the start to the one a while later.

ω_t + u · ∇ω = ν Δω on a periodic square, u from the stream function, pseudo-spectral, RK4 with an
integrating factor for the viscosity and the two-thirds rule [1].

[1] C. Canuto et al., Spectral Methods in Fluid Dynamics, Springer 1988.
"""

import numpy as np

from benchmarks.natural_failures.tasks.contract import Pairs
from benchmarks.natural_failures.tasks.random_fields import smooth_fields

VISCOSITY, TIME, STEPS = 2e-3, 1.2, 120
LARGEST = 6.0  # the standard deviation of the vorticity, 1/s


def make_vorticity(rng: np.random.Generator, number: int, size: int) -> Pairs:
    """Return vorticities in 1/s at the start and at the end, each (number, 1, size, size)."""
    start = LARGEST * smooth_fields(rng, number, size, 5.0, least=3.0)
    wave = np.fft.fftfreq(size, 1 / size)
    kx, ky = np.meshgrid(2 * np.pi * wave, 2 * np.pi * wave[: size // 2 + 1], indexing="ij")
    ky = np.abs(ky)
    square = kx**2 + ky**2
    inverse = np.divide(1, square, out=np.zeros_like(square), where=square > 0)
    kept = (np.abs(kx) < 2 * np.pi * size / 3) & (ky < 2 * np.pi * size / 3)
    step = TIME / STEPS
    half = np.exp(-VISCOSITY * square * step / 2)

    def to_field(spectrum: np.ndarray) -> np.ndarray:
        return np.fft.irfft2(spectrum, s=(size, size))

    def rate(spectrum: np.ndarray) -> np.ndarray:
        stream = spectrum * inverse
        along_x, along_y = to_field(1j * ky * stream), to_field(-1j * kx * stream)
        moved = along_x * to_field(1j * kx * spectrum) + along_y * to_field(1j * ky * spectrum)
        return -np.fft.rfft2(moved) * kept

    state = np.fft.rfft2(start)
    for _ in range(STEPS):
        one = rate(state)
        two = rate(half * (state + step / 2 * one))
        three = rate(half * state + step / 2 * two)
        four = rate(half * (half * state + step * three))
        state = half**2 * state + step / 6 * (half**2 * one + 2 * half * (two + three) + four)
    return start[:, None], to_field(state)[:, None]
