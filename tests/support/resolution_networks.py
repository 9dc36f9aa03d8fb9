"""Networks that depend on the grid, and one that does not."""

import torch
from torch import nn


class SpectralLayer(nn.Module):
    """A spectral convolution over the last two axes; without `norm`, its inverse transform is not scaled."""

    def __init__(self, width: int, modes: int, inverse_norm: str = "backward") -> None:
        super().__init__()
        self.modes, self.inverse_norm = modes, inverse_norm
        scale = 1 / width
        self.weight = nn.Parameter(scale * torch.randn(2, width, width, modes, modes, dtype=torch.cfloat))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        modes, sizes = self.modes, x.shape[-2:]
        spectrum = torch.fft.rfft2(x)
        kept = torch.zeros_like(spectrum)
        for rows, weight in ((slice(modes), self.weight[0]), (slice(-modes, None), self.weight[1])):
            kept[..., rows, :modes] = torch.einsum("bixy,ioxy->boxy", spectrum[..., rows, :modes], weight)
        return torch.fft.irfft2(kept, s=sizes, norm=self.inverse_norm)


class Block(nn.Module):
    """A spectral layer and a local branch of a kernel of so many points, and GELU of their sum."""

    def __init__(self, width: int, kernel: int, inverse_norm: str) -> None:
        super().__init__()
        self.spectral = SpectralLayer(width, 4, inverse_norm)
        self.local = nn.Conv2d(width, width, kernel, padding=kernel // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(self.spectral(x) + self.local(x))


def make_network(kernel: int = 1, inverse_norm: str = "backward", seed: int = 0) -> nn.Module:
    """Return lifting, blocks and projection; only kernels of 1 and the default norm keep to the fields."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 1), Block(8, kernel, inverse_norm), Block(8, kernel, inverse_norm), nn.Conv2d(8, 1, 1)
    )


def make_pointwise() -> nn.Module:
    """Return a network that keeps to the fields, for the command."""
    return make_network()


def make_fixed() -> nn.Module:
    """Return a network that takes fields of 16 x 16 points only, for the command."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 1), nn.Flatten(), nn.Linear(4 * 256, 256), nn.Unflatten(1, (1, 16, 16))
    )


def smooth_fields(samples: int, size: int, seed: int = 0) -> torch.Tensor:
    """Return (samples, 1, size, size) of waves of at most 3 cycles."""
    generator = torch.Generator().manual_seed(seed)
    coefficients = torch.zeros(samples, 1, size, size, dtype=torch.cfloat)
    low = torch.randn(samples, 1, 7, 7, generator=generator, dtype=torch.cfloat)
    coefficients[..., :7, :7] = low
    return torch.fft.ifft2(coefficients.roll((-3, -3), (2, 3)), norm="forward").real
