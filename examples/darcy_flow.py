"""Make a small Darcy problem, and a network that learns it; the examples that train use both.

The permeability a takes two values, as the sign of a smooth random field. The pressure u fulfils
-div(a grad u) = 1 in the unit square and 0 on its border, with finite differences [1].

[1] Z. Li et al., Fourier Neural Operator for Parametric Partial Differential Equations, ICLR 2021.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils.data import TensorDataset

HIGH, LOW = 12.0, 3.0  # permeabilities


def make_permeability(size: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return a field of shape (size, size) with the values HIGH and LOW."""
    frequency = np.fft.fftfreq(size, 1 / size)
    spectrum = (9 + np.pi**2 * (frequency[:, None] ** 2 + frequency[None, :] ** 2)) ** -2.0
    field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, size))) * spectrum).real
    return np.where(field > 0, HIGH, LOW)


def solve(permeability: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the pressure of shape (size, size) at the centres of the cells."""
    size = len(permeability)
    number = np.arange(size * size).reshape(size, size)
    matrix = np.zeros((size * size, size * size))
    for axis in (0, 1):
        a, index = np.moveaxis(permeability, axis, 0), np.moveaxis(number, axis, 0)
        between = 2 * a[1:] * a[:-1] / (a[1:] + a[:-1])
        for one, other in ((index[1:], index[:-1]), (index[:-1], index[1:])):
            matrix[one, one] += between
            matrix[one, other] -= between
        for border, cells in ((a[0], index[0]), (a[-1], index[-1])):
            matrix[cells, cells] += 2 * border
    return np.linalg.solve(matrix, np.full(size * size, size**-2.0)).reshape(size, size)


def make_dataset(samples: int = 64, size: int = 16, seed: int = 0) -> TensorDataset:
    """Return pairs of permeability and pressure, each of shape (1, size, size) and of order 1."""
    rng = np.random.default_rng(seed)
    permeability = np.stack([make_permeability(size, rng) for _ in range(samples)])
    pressure = np.stack([solve(field) for field in permeability])
    x, y = (permeability - LOW) / (HIGH - LOW), pressure / pressure.std()
    return TensorDataset(*(torch.from_numpy(each).float().unsqueeze(1) for each in (x, y)))


class SpectralConv(nn.Module):
    """Multiplies the lowest frequencies of a field by weights."""

    def __init__(self, width: int, modes: int) -> None:
        super().__init__()
        self.modes = modes
        self.weight = nn.Parameter(torch.randn(2, width, width, modes, modes, dtype=torch.cfloat) / width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a field of the shape of `x`."""
        spectrum, modes = torch.fft.rfft2(x), self.modes
        kept = torch.zeros_like(spectrum)
        for rows, weight in zip((slice(modes), slice(-modes, None)), self.weight, strict=True):
            kept[..., rows, :modes] = torch.einsum("bixy,ioxy->boxy", spectrum[..., rows, :modes], weight)
        return torch.fft.irfft2(kept, s=x.shape[-2:])


class FNO(nn.Module):
    """A Fourier neural operator of two blocks, from (B, 1, H, W) to the same shape."""

    def __init__(self, width: int = 16, modes: int = 6) -> None:
        super().__init__()
        self.lifting = nn.Conv2d(1, width, 1)
        self.spectral = nn.ModuleList(SpectralConv(width, modes) for _ in range(2))
        self.local = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(2))
        self.projection = nn.Conv2d(width, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the pressure for the permeability `x`."""
        x = self.lifting(x)
        for spectral, local in zip(self.spectral, self.local, strict=True):
            x = nn.functional.gelu(spectral(x) + local(x))
        return self.projection(x)
