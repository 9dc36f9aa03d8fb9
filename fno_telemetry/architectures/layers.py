"""The pieces that the built-in networks share.

Parameter names and shapes are promises: they are those of the checkpoints that people have.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class SquareRoot(nn.Module):
    """The square root of the input, with negative values taken as zero; shape unchanged."""

    def forward(self, x: Tensor) -> Tensor:
        """Return sqrt(max(x, 0))."""
        return x.clamp(min=0).sqrt()


class LogOnePlus(nn.Module):
    """The logarithm of one plus the input, with negative values taken as zero; shape unchanged."""

    def forward(self, x: Tensor) -> Tensor:
        """Return log(1 + max(x, 0))."""
        return x.clamp(min=0).log1p()


INPUT_TRANSFORMS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda channels: nn.Identity(),
    "sqrt": lambda channels: SquareRoot(),
    "log1p": lambda channels: LogOnePlus(),
    "instancenorm": lambda channels: nn.InstanceNorm2d(channels, affine=False, eps=1e-6),
}
"""What may be done to the range of the input, by name; none of them has parameters."""


class SpatialLifter(nn.Module):
    """Lift the input to the hidden channels by two 3x3 convolutions: (B, in, H, W) to (B, out, H, W)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: int | None = None,
        input_transform: str = "none",
    ) -> None:
        super().__init__()
        hidden = out_channels if hidden_channels is None else hidden_channels
        self.input_transform = INPUT_TRANSFORMS[input_transform](in_channels)
        self.conv1 = nn.Conv2d(in_channels, hidden, kernel_size=3, padding=1)
        self.act = nn.GELU()
        self.conv2 = nn.Conv2d(hidden, out_channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the lifted input."""
        lifted: Tensor = self.conv2(self.act(self.conv1(self.input_transform(x))))
        return lifted


class SpectralConvolution(nn.Module):
    """Multiply the lowest Fourier modes by learned matrices: (B, C_in, H, W) to (B, C_out, H, W).

    Only rows 0..modes-1 and columns 0..modes-1 of the half spectrum pass, capped to (H, W//2+1).
    Negative row frequencies are dropped on purpose: existing weights were trained that way.
    """

    def __init__(self, in_channels: int, out_channels: int, modes: int) -> None:
        super().__init__()
        self.modes = modes
        weights = torch.empty(in_channels, out_channels, modes, modes, dtype=torch.complex64)
        if not weights.is_meta:  # for complex numbers without values, torch would import much
            weights.normal_().div_(in_channels**0.5)
        self.weights = nn.Parameter(weights)

    def forward(self, x: Tensor) -> Tensor:
        """Return the filtered input in the dtype of the input."""
        height, width = x.shape[-2:]
        rows, columns = min(self.modes, height), min(self.modes, width // 2 + 1)
        # FFTs of half precision exist only for some sizes and devices.
        values = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        spectrum = torch.fft.rfft2(values)
        weights = self.weights[:, :, :rows, :columns].to(spectrum.dtype)
        filtered = spectrum.new_zeros(x.shape[0], weights.shape[1], height, width // 2 + 1)
        filtered[:, :, :rows, :columns] = torch.einsum(
            "bixy,ioxy->boxy", spectrum[:, :, :rows, :columns], weights
        )
        result: Tensor = torch.fft.irfft2(filtered, s=(height, width))
        return result.to(x.dtype)


class PtychoBlock(nn.Module):
    """A residual update from a spectral and a local branch: y = x + act(spectral(x) + local_conv(x))."""

    def __init__(self, channels: int, modes: int) -> None:
        super().__init__()
        self.spectral = SpectralConvolution(channels, channels, modes)
        self.local_conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, channels, H, W)."""
        updated: Tensor = x + self.act(self.spectral(x) + self.local_conv(x))
        return updated


class StablePtychoBlock(PtychoBlock):
    """A `PtychoBlock` whose update is normalised and scaled down, so that it starts near the identity.

    y = x + layerscale * norm(act(spectral(x) + local_conv(x)))
    """

    def __init__(self, channels: int, modes: int) -> None:
        super().__init__(channels, modes)
        self.norm = nn.InstanceNorm2d(channels, affine=True, eps=1e-5)
        self.layerscale = nn.Parameter(torch.full((channels,), 1e-3))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, channels, H, W)."""
        update: Tensor = self.norm(self.act(self.spectral(x) + self.local_conv(x)))
        return x + self.layerscale.view(1, -1, 1, 1) * update
