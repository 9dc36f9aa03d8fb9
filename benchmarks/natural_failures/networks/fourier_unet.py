"""A small U-Net with Fourier mixers in its middle, as people write hybrids: norms, MLPs, layer scale."""

import torch
from torch import nn

from benchmarks.natural_failures.networks.written_fno import SpectralConv


class DoubleConv(nn.Module):
    """Two 3x3 convolutions, each with a norm and an activation: (B, C, H, W) to (B, D, H, W)."""

    def __init__(self, inputs: int, outputs: int, norm: type[nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1),
            norm(outputs),
            nn.GELU(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            norm(outputs),
            nn.GELU(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, D, H, W)."""
        return self.body(x)


class FourierMixer(nn.Module):
    """x + gamma · (spectral(norm(x)) + local(norm(x))), and the same with an MLP: a transformer's block."""

    def __init__(self, width: int, modes: int, layer_scale: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(4, width), nn.GroupNorm(4, width)
        self.spectral, self.local = SpectralConv(width, modes, 2), nn.Conv2d(width, width, 1)
        self.mlp = nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.GELU(), nn.Conv2d(2 * width, width, 1))
        self.gamma1 = nn.Parameter(torch.full((width,), layer_scale))
        self.gamma2 = nn.Parameter(torch.full((width,), layer_scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, C, H, W)."""
        y = self.norm1(x)
        x = x + self.gamma1[:, None, None] * (self.spectral(y) + self.local(y))
        return x + self.gamma2[:, None, None] * self.mlp(self.norm2(x))


class FourierUNet(nn.Module):
    """(B, C, H, W) to (B, K, H, W), one halving."""

    def __init__(
        self, inputs: int, targets: int, width: int, modes: int, layers: int, layer_scale: float = 0.1
    ) -> None:
        super().__init__()
        self.stem = DoubleConv(inputs, width)
        self.down = nn.Conv2d(width, 2 * width, 2, stride=2)
        self.mixers = nn.ModuleList(FourierMixer(2 * width, modes, layer_scale) for _ in range(layers))
        self.dropout = nn.Dropout(0.0)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.merge = DoubleConv(2 * width, width)
        self.head = nn.Conv2d(width, targets, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, K, H, W)."""
        skip = self.stem(x)
        x = self.down(skip)
        for mixer in self.mixers:
            x = mixer(x)
        x = self.up(self.dropout(x))
        return self.head(self.merge(torch.cat((x, skip), 1)))
