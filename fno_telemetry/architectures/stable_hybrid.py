"""`stable_hybrid`: the U-shaped network with Fourier blocks that start near the identity."""

from typing import ClassVar

from fno_telemetry.architectures.contract import Architecture
from fno_telemetry.architectures.generators import Generator, count_children
from fno_telemetry.architectures.hybrid import HybridUNOGenerator
from fno_telemetry.architectures.layers import PtychoBlock, StablePtychoBlock


class StableHybridUNOGenerator(HybridUNOGenerator):
    """A `HybridUNOGenerator` with normalised, scaled updates in every Fourier block; same in and out."""

    block: ClassVar[type[PtychoBlock]] = StablePtychoBlock


STABLE_HYBRID: Architecture = Generator(
    name="stable_hybrid",
    network=StableHybridUNOGenerator,
    blocks="encoder_blocks",
    depth=lambda shapes: {"n_blocks": count_children(shapes, "encoder_blocks")},
)
