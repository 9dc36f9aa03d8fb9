"""Simulate far-field ptychographic diffraction and save it as an NPZ that `capture` reads.

A complex object of random smooth phase lines is scanned by a Gaussian probe with a curved phase. For each
position the exit wave is the object times the probe; the detector sees the amplitude of its far field, the
centred two-dimensional Fourier transform [1], with photon noise.

[1] J. W. Goodman, Introduction to Fourier Optics: Fraunhofer diffraction.

Usage: python examples/simulate_diffraction.py OUTPUT.npz [--patterns 16] [--size 64] [--seed 0]
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

PHOTONS = 1e6  # per pattern


def make_object(size: int, rng: np.random.Generator) -> npt.NDArray[np.complex128]:
    """Return a complex transmission of shape (size, size): weak absorption, phase up to about 1 rad."""
    y, x = np.mgrid[:size, :size] / size
    phase = np.zeros((size, size))
    for _ in range(48):
        angle, offset, width = rng.uniform(0, np.pi), rng.uniform(-0.5, 1.5), rng.uniform(0.004, 0.012)
        distance = x * np.cos(angle) + y * np.sin(angle) - offset
        phase += rng.uniform(0.3, 0.9) * np.exp(-((distance / width) ** 2))
    return np.exp((1j - 0.1) * phase)


def make_probe(size: int) -> npt.NDArray[np.complex128]:
    """Return a Gaussian probe of shape (size, size) with a defocus phase, of unit energy."""
    axis = np.arange(size) - size / 2 + 0.5
    radius = (axis[:, None] ** 2 + axis[None, :] ** 2) / (size / 5) ** 2
    probe = np.exp((-0.5 + 2.5j) * radius)
    return probe / np.linalg.norm(probe)


def simulate(patterns: int, size: int, seed: int) -> npt.NDArray[np.float32]:
    """Return diffraction amplitudes of shape (patterns, size, size), zero frequency in the centre."""
    rng = np.random.default_rng(seed)
    transmission, probe = make_object(4 * size, rng), make_probe(size)
    amplitudes = np.empty((patterns, size, size), dtype=np.float32)
    for index in range(patterns):
        top, left = rng.integers(0, 3 * size, endpoint=True, size=2)
        exit_wave = transmission[top : top + size, left : left + size] * probe
        far_field = np.fft.fftshift(np.fft.fft2(exit_wave, norm="ortho"))
        counts = rng.poisson(PHOTONS * np.abs(far_field) ** 2)
        amplitudes[index] = np.sqrt(counts / PHOTONS)
    return amplitudes / amplitudes.max()


def main() -> None:
    """Write the file and say what is in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--patterns", type=int, default=16)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    diffraction = simulate(given.patterns, given.size, given.seed)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(given.output, diffraction=diffraction)
    print(f"{given.output}: diffraction {diffraction.shape}, amplitude 0 to {diffraction.max():.2f}")


if __name__ == "__main__":
    main()
