"""The size of an output and of its target by channel, and how far the target is from constant channels."""

import math
from dataclasses import dataclass

import torch

from fno_telemetry.statistics.contract import Undefined
from fno_telemetry.statistics.field_energy import NO_ENERGY

MOST_CHANNELS = 64
"""The numbers of channels are recorded one by one where there are at most so many."""


@dataclass(frozen=True)
class ChannelSums:
    """The mean of the target by channel, the energy around these means, and norms by channel."""

    elements: torch.Tensor  # of one channel
    mean: torch.Tensor
    around: torch.Tensor
    norms: torch.Tensor  # (2, channels): of the output, of the target

    def merge(self, other: "ChannelSums") -> "ChannelSums | Undefined":
        """Return the sums over both data sets [1].

        [1] Chan, Golub, LeVeque: Updating formulae and a pairwise algorithm for computing sample variances.
        """
        if self.mean.shape != other.mean.shape:
            return Undefined("the number of channels changed between batches")
        elements = self.elements + other.elements
        distance = other.mean - self.mean
        share = other.elements / elements.to(self.around.dtype)
        between = distance.abs().square().sum() * self.elements * share
        return ChannelSums(
            elements=elements,
            mean=self.mean + distance * share,
            around=self.around + other.around + between,
            norms=torch.hypot(self.norms, other.norms),
        )


def relate_to_means(state: ChannelSums | Undefined, error: float, target: float) -> float | str:
    """Return the norm of an error over that of the target around its means, or why it is undefined."""
    if isinstance(state, Undefined):
        return state.reason
    around = float(state.around)
    if not math.isfinite(around):
        return "the squares overflow float64"
    # The root first: the square of the norm may overflow.
    if math.sqrt(around) <= math.sqrt(NO_ENERGY) * target:
        return "the target is constant"
    return error / math.sqrt(around)


def list_channels(state: ChannelSums | Undefined) -> tuple[float | None, ...] | str:
    """Return the rms of the output over that of the target by channel, None where that is zero."""
    if isinstance(state, Undefined):
        return state.reason
    outputs, targets = state.norms.tolist()
    if len(targets) > MOST_CHANNELS:
        return f"more than {MOST_CHANNELS} channels"
    return tuple(z / y if y else None for z, y in zip(outputs, targets, strict=True))
