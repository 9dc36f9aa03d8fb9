"""`fno`: Fourier blocks at full resolution, refined by small convolutions."""

from torch import Tensor, nn

from fno_telemetry.architectures.contract import Architecture
from fno_telemetry.architectures.generators import Generator, Output, add_output, apply_output, count_children
from fno_telemetry.architectures.layers import PtychoBlock, SpatialLifter


class CascadedFNOGenerator(nn.Module):
    """A stack of Fourier blocks followed by a stack of 3x3 convolutions.

    Takes (B, in_channels*C, H, W). Returns (B, H, W, C, 2), or with output_mode "amp_phase" the tuple
    (amplitude, phase), each (B, C, H, W).
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 2,
        hidden_channels: int = 32,
        fno_blocks: int = 4,
        cnn_blocks: int = 2,
        modes: int = 12,
        C: int = 4,  # noqa: N803 - the name that people and their checkpoints use
        input_transform: str = "none",
        output_mode: str = "real_imag",
    ) -> None:
        super().__init__()
        self.lifter = SpatialLifter(in_channels * C, hidden_channels, input_transform=input_transform)
        self.fno_blocks = nn.ModuleList(PtychoBlock(hidden_channels, modes) for _ in range(fno_blocks))
        self.intermediate = nn.Conv2d(hidden_channels, hidden_channels, kernel_size=1)
        self.cnn_refiner = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(hidden_channels, hidden_channels, kernel_size=3, padding=1), nn.GELU()
                )
                for _ in range(cnn_blocks)
            )
        )
        self.patches = C
        add_output(self, hidden_channels, C, out_channels, output_mode)

    def forward(self, x: Tensor) -> Output:
        """Return the patches."""
        x = self.lifter(x)
        for block in self.fno_blocks:
            x = block(x)
        return apply_output(self, self.cnn_refiner(self.intermediate(x)), self.patches)


FNO: Architecture = Generator(
    name="fno",
    network=CascadedFNOGenerator,
    blocks="fno_blocks",
    depth=lambda shapes: {
        "fno_blocks": count_children(shapes, "fno_blocks"),
        "cnn_blocks": count_children(shapes, "cnn_refiner"),
    },
)
