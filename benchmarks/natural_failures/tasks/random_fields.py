"""Random periodic fields that several tasks are made of."""

import numpy as np
import numpy.typing as npt

Fields = npt.NDArray[np.float64]


def smooth_fields(
    rng: np.random.Generator, number: int, size: int, slope: float, least: float = 2.0
) -> Fields:
    """Return (number, size, size) of unit variance, whose amplitudes fall as (f² + least²)^(-slope/2).

    Frequencies f are in cycles per field.
    """
    noise = rng.standard_normal((number, size, size))
    frequency = np.fft.fftfreq(size, 1 / size)
    square = frequency[:, None] ** 2 + frequency[None, : size // 2 + 1] ** 2
    spectrum = np.fft.rfft2(noise) * (square + least**2) ** (-slope / 2)
    spectrum[:, 0, 0] = 0
    fields = np.fft.irfft2(spectrum, s=(size, size))
    return fields / fields.std(axis=(1, 2), keepdims=True)


def draw_shapes(rng: np.random.Generator, number: int, size: int, shapes: int) -> Fields:
    """Return (number, size, size) of discs and bars with sharp edges and values from 0 to 1."""
    y, x = np.mgrid[:size, :size] / size
    fields = np.zeros((number, size, size))
    for field in fields:
        for _ in range(shapes):
            centre, value = rng.uniform(0, 1, 2), rng.uniform(0.2, 0.7)
            if rng.random() < 0.5:
                inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < rng.uniform(0.05, 0.15) ** 2
            else:
                angle = rng.uniform(0, np.pi)
                distance = (x - centre[0]) * np.cos(angle) + (y - centre[1]) * np.sin(angle)
                inside = np.abs(distance) < rng.uniform(0.02, 0.06)
            field[inside] += value
    return np.clip(fields, 0, 1)
