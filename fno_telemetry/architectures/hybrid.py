"""`hybrid`: a U-shaped network with Fourier blocks on the way down and convolutions on the way up."""

from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from fno_telemetry.architectures.contract import Architecture
from fno_telemetry.architectures.generators import Generator, Output, add_output, apply_output, count_children
from fno_telemetry.architectures.layers import PtychoBlock, SpatialLifter
from fno_telemetry.errors import ModelError


class HybridUNOGenerator(nn.Module):
    """A U-Net whose encoder and bottleneck are Fourier blocks; channels double at each halving.

    Takes (B, in_channels*C, H, W), H and W divisible by 2**(n_blocks-1), as there are n_blocks-1 halvings.
    Returns (B, H, W, C, 2), or with output_mode "amp_phase" the tuple (amplitude, phase), each (B, C, H, W).
    """

    block: ClassVar[type[PtychoBlock]] = PtychoBlock

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 2,
        hidden_channels: int = 32,
        n_blocks: int = 4,
        modes: int = 12,
        C: int = 4,  # noqa: N803 - the name that people and their checkpoints use
        input_transform: str = "none",
        output_mode: str = "real_imag",
    ) -> None:
        super().__init__()
        widths = [hidden_channels * 2**level for level in range(n_blocks)]
        halvings = list(pairwise(widths))  # (finer, coarser), finest first
        self.lifter = SpatialLifter(in_channels * C, hidden_channels, input_transform=input_transform)
        self.encoder_blocks = nn.ModuleList(self.block(width, modes) for width in widths)
        self.downsample = nn.ModuleList(
            nn.Conv2d(fine, coarse, kernel_size=2, stride=2) for fine, coarse in halvings
        )
        self.bottleneck = self.block(widths[-1], modes // 2)
        self.upsample = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, kernel_size=2, stride=2) for fine, coarse in reversed(halvings)
        )
        self.decoder_blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(2 * fine, fine, kernel_size=3, padding=1),
                nn.GELU(),
                nn.Conv2d(fine, fine, kernel_size=3, padding=1),
            )
            for fine, _ in reversed(halvings)
        )
        self.patches = C
        add_output(self, hidden_channels, C, out_channels, output_mode)

    def forward(self, x: Tensor) -> Output:
        """Return the patches; ModelError when height or width cannot be halved often enough."""
        divisor = 2 ** len(self.downsample)
        height, width = x.shape[-2:]
        if height % divisor or width % divisor:
            raise ModelError(
                f"This network halves its input {len(self.downsample)} times, so height and width must be "
                f"divisible by {divisor}; the input has {height}x{width} pixels. Crop or pad it, or build "
                "the network with a smaller `n_blocks`."
            )
        x = self.lifter(x)
        skips: list[Tensor] = []
        # The last encoder block has nothing to halve for and leads into the bottleneck.
        for encode, halve in zip(self.encoder_blocks, self.downsample, strict=False):
            x = encode(x)
            skips.append(x)
            x = halve(x)
        x = self.bottleneck(self.encoder_blocks[-1](x))
        for double, decode in zip(self.upsample, self.decoder_blocks, strict=True):
            x = decode(torch.cat([double(x), skips.pop()], dim=1))
        return apply_output(self, x, self.patches)


HYBRID: Architecture = Generator(
    name="hybrid",
    network=HybridUNOGenerator,
    blocks="encoder_blocks",
    depth=lambda shapes: {"n_blocks": count_children(shapes, "encoder_blocks")},
)
