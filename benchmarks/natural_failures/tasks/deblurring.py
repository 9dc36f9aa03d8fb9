"""Deblurring of microscope-like pictures: from a blurred, noisy picture to the sharp one."""

import numpy as np

from benchmarks.natural_failures.tasks.contract import Pairs
from benchmarks.natural_failures.tasks.random_fields import draw_shapes, smooth_fields

BLUR = 1.1  # standard deviation of the Gaussian, in pixels
NOISE = 0.01


def make_deblurring(rng: np.random.Generator, number: int, size: int) -> Pairs:
    """Return blurred and sharp pictures in units of 0 to about 255, each (number, 1, size, size)."""
    sharp = draw_shapes(rng, number, size, 5) + 0.15 * smooth_fields(rng, number, size, 1.2, least=4)
    frequency = np.fft.fftfreq(size)
    square = frequency[:, None] ** 2 + frequency[None, : size // 2 + 1] ** 2
    kernel = np.exp(-2 * (np.pi * BLUR) ** 2 * square)
    blurred = np.fft.irfft2(np.fft.rfft2(sharp) * kernel, s=(size, size))
    blurred += NOISE * rng.standard_normal(blurred.shape)
    return 200 * blurred[:, None], 200 * sharp[:, None]
