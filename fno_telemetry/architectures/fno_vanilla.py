"""`fno_vanilla`: Fourier blocks at full resolution and nothing else."""

from torch import Tensor, nn

from fno_telemetry.architectures.contract import Architecture
from fno_telemetry.architectures.generators import Generator, Output, add_output, apply_output, count_children
from fno_telemetry.architectures.layers import PtychoBlock, SpatialLifter


class FnoVanillaGeneratorModule(nn.Module):
    """A stack of Fourier blocks between a lifter and a 1x1 projection.

    Takes (B, in_channels*C, H, W). Returns (B, H, W, C, 2), or with output_mode "amp_phase" the tuple
    (amplitude, phase), each (B, C, H, W).
    """

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
        self.lifter = SpatialLifter(in_channels * C, hidden_channels, input_transform=input_transform)
        self.blocks = nn.ModuleList(PtychoBlock(hidden_channels, modes) for _ in range(n_blocks))
        self.patches = C
        add_output(self, hidden_channels, C, out_channels, output_mode)

    def forward(self, x: Tensor) -> Output:
        """Return the patches."""
        x = self.lifter(x)
        for block in self.blocks:
            x = block(x)
        return apply_output(self, x, self.patches)


FNO_VANILLA: Architecture = Generator(
    name="fno_vanilla",
    network=FnoVanillaGeneratorModule,
    blocks="blocks",
    depth=lambda shapes: {"n_blocks": count_children(shapes, "blocks")},
)
