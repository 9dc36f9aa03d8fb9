"""In-line holography: from photon counts at two distances to an object's amplitude and phase.

The exit wave of the object is propagated a short way by the Fresnel kernel in Fourier space [1]; the detector
counts photons.

[1] J. W. Goodman, Introduction to Fourier Optics, section 4.2.
"""

import numpy as np

from benchmarks.natural_failures.tasks.contract import Pairs
from benchmarks.natural_failures.tasks.random_fields import draw_shapes, smooth_fields

PHOTONS = 2000  # per pixel of the empty beam
DISTANCES = (-1.0, 1.0)  # the phase of the kernel at the highest frequency, in units of π


def make_holography(rng: np.random.Generator, number: int, size: int) -> Pairs:
    """Return counts (number, 2, size, size), and amplitude and phase in rad (number, 2, size, size)."""
    lines, shapes = draw_shapes(rng, number, size, 4), draw_shapes(rng, number, size, 3)
    amplitude = 1 - 0.4 * shapes
    phase = 0.9 * lines + 0.15 * smooth_fields(rng, number, size, 2.5)
    frequency = np.fft.fftfreq(size)
    square = frequency[:, None] ** 2 + frequency[None, :] ** 2
    spectrum = np.fft.fft2(amplitude * np.exp(1j * phase))
    kernels = [np.exp(-4j * np.pi * distance * square) for distance in DISTANCES]
    waves = np.stack([np.fft.ifft2(spectrum * kernel) for kernel in kernels], 1)
    counts = rng.poisson(PHOTONS * np.abs(waves) ** 2).astype(float)
    return counts, np.stack([amplitude, phase], 1)
