"""Fisher's equation in three dimensions: from a population at the start to the one that has spread.

u_t = D Δu + r u (1 - u) on a periodic cube, diffusion in Fourier space and growth exactly, in turn [1].

[1] G. Strang, On the construction and comparison of difference schemes, SIAM J. Numer. Anal. 1968.
"""

import numpy as np

from benchmarks.natural_failures.tasks.contract import Pairs

STEPS, TIME = 20, 1.0
DIFFUSION, GROWTH = 0.002, 3.0


def make_fisher(rng: np.random.Generator, number: int, size: int) -> Pairs:
    """Return densities from 0 to 1 at the start and at the end, each (number, 1, size, size, size)."""
    axes = (1, 2, 3)
    wave = 2 * np.pi * np.fft.fftfreq(size, 1 / size)
    square = wave[:, None, None] ** 2 + wave[None, :, None] ** 2 + wave[None, None, :] ** 2
    noise = np.fft.fftn(rng.standard_normal((number, size, size, size)), axes=axes)
    smooth = np.fft.ifftn(noise * np.exp(-0.006 * square), axes=axes).real
    smooth -= smooth.mean(axes, keepdims=True)
    start = 1 / (1 + np.exp(-2.5 * (smooth / smooth.std(axes, keepdims=True) - 1)))
    density, step = start, TIME / STEPS
    kernel = np.exp(-DIFFUSION * square * step)
    for _ in range(STEPS):
        density = density / (density + (1 - density) * np.exp(-GROWTH * step))
        density = np.fft.ifftn(np.fft.fftn(density, axes=axes) * kernel, axes=axes).real
    return start[:, None], density[:, None]
