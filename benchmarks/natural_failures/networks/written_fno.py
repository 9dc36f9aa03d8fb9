"""A Fourier neural operator as people write it by hand: channels last, the grid appended, bare parameters.

It follows the code of Z. Li et al., Fourier Neural Operator for Parametric Partial Differential Equations,
ICLR 2021, which most hand-written ones descend from.
"""

from collections.abc import Callable

import torch
from torch import nn


class SpectralConv(nn.Module):
    """Multiplies the lowest modes of (B, C, *S) by complex weights, in one or two dimensions.

    `half` keeps the coefficients in float16 between the transforms, as an autocast by hand does.
    """

    def __init__(self, width: int, modes: int, dimension: int) -> None:
        super().__init__()
        self.modes, self.dimension = modes, dimension
        scale = 1 / width
        shape = (width, width, *[modes] * dimension)
        self.weights1 = nn.Parameter(scale * torch.randn(*shape, dtype=torch.cfloat))
        if dimension == 2:
            self.weights2 = nn.Parameter(scale * torch.randn(*shape, dtype=torch.cfloat))
        self.half = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, C, *S)."""
        sizes = x.shape[2:]
        spectrum = torch.fft.rfftn(x, dim=tuple(range(2, x.ndim)))
        if self.half:
            spectrum = torch.view_as_complex(torch.view_as_real(spectrum).half().float())
        kept, modes = torch.zeros_like(spectrum), self.modes
        if self.dimension == 1:
            kept[..., :modes] = torch.einsum("bix,iox->box", spectrum[..., :modes], self.weights1)
        else:
            for rows, weights in ((slice(modes), self.weights1), (slice(-modes, None), self.weights2)):
                part = spectrum[..., rows, :modes]
                kept[..., rows, :modes] = torch.einsum("bixy,ioxy->boxy", part, weights)
        return torch.fft.irfftn(kept, s=sizes, dim=tuple(range(2, x.ndim)))


class WrittenFNO(nn.Module):
    """(B, *S, C) to (B, *S, K): `fc0`, Fourier layers `conv<i>` with `w<i>` beside them, `fc1`, `fc2`."""

    def __init__(
        self, inputs: int, targets: int, dimension: int, width: int, modes: int, layers: int
    ) -> None:
        super().__init__()
        local = nn.Conv1d if dimension == 1 else nn.Conv2d
        self.layers, self.padding, self.crop_at_start = layers, 0, False
        self.detach_after: int | None = None
        self.act: Callable[[torch.Tensor], torch.Tensor] = nn.functional.gelu
        self.fc0 = nn.Linear(inputs + dimension, width)
        for layer in range(layers):
            setattr(self, f"conv{layer}", SpectralConv(width, modes, dimension))
            setattr(self, f"w{layer}", local(width, width, 1))
        self.scale = nn.Parameter(torch.ones(width))
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, targets)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, *S, K)."""
        x = self.fc0(torch.cat((x, append_grid(x)), -1)).movedim(-1, 1)
        sizes = x.shape[2:]
        if self.padding:
            x = nn.functional.pad(x, [0, self.padding] * len(sizes))
        for layer in range(self.layers):
            x = getattr(self, f"conv{layer}")(x) + getattr(self, f"w{layer}")(x)
            if layer < self.layers - 1:
                x = self.act(x)
        if self.padding:
            for axis, size in enumerate(sizes):
                x = x.narrow(2 + axis, self.padding if self.crop_at_start else 0, size)
        x = x.movedim(1, -1) * self.scale
        return self.fc2(self.act(self.fc1(x)))


def append_grid(x: torch.Tensor) -> torch.Tensor:
    """Return the positions of (B, *S, C) from 0 to 1, (B, *S, number of axes)."""
    sizes = x.shape[1:-1]
    axes = torch.meshgrid(*(torch.linspace(0, 1, size) for size in sizes), indexing="ij")
    return torch.stack(axes, -1).expand(len(x), *sizes, len(sizes)).to(x)
