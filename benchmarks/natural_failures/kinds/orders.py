"""Accidents with the order of data: swapped axes, reshapes, transforms over the wrong axes, shifts."""

from typing import Any

import torch
from torch import nn

from benchmarks.natural_failures.kinds.contract import OUTCOME, Kind, Places
from benchmarks.natural_failures.networks.families import FAMILIES
from benchmarks.natural_failures.networks.written_fno import SpectralConv
from benchmarks.natural_failures.setup import Samples, Setup

ORDER: Places = ("input", *OUTCOME)


def rows_and_columns_swapped(setup: Setup) -> Places:
    """Inputs were written by a program that stores columns first, targets were not."""
    setup.train = Samples(setup.train.x.transpose(-1, -2), setup.train.y)
    setup.test = Samples(setup.test.x.transpose(-1, -2), setup.test.y)
    return ORDER


def upside_down(setup: Setup) -> Places:
    """Inputs have their rows from bottom to top, targets from top to bottom."""
    setup.train = Samples(setup.train.x.flip(2), setup.train.y)
    setup.test = Samples(setup.test.x.flip(2), setup.test.y)
    return ORDER


def reshaped_axes(setup: Setup) -> Places:
    """Arrays with channels last are brought to channels first by a reshape instead of a permutation."""

    def reshape(x: torch.Tensor) -> torch.Tensor:
        return x.movedim(1, -1).reshape(x.shape)

    setup.train = Samples(reshape(setup.train.x), setup.train.y)
    setup.test = Samples(reshape(setup.test.x), setup.test.y)
    return ORDER


def patches_scrambled(setup: Setup) -> Places:
    """Fields were flattened with another number of columns than they have."""

    def scramble(x: torch.Tensor) -> torch.Tensor:
        size = x.shape[-1]
        return x.reshape(*x.shape[:2], size // 4, size, 4).transpose(-1, -2).reshape(x.shape)

    setup.train = Samples(scramble(setup.train.x), setup.train.y)
    setup.test = Samples(scramble(setup.test.x), setup.test.y)
    return ORDER


class WrongAxes(nn.Module):
    """A spectral convolution over channels and columns, instead of rows and columns."""

    def __init__(self, width: int, modes: int) -> None:
        super().__init__()
        self.modes, self.channels = modes, min(modes, width // 2)
        shape = (2, self.channels, modes)
        self.weights = nn.Parameter(torch.randn(*shape, dtype=torch.cfloat) / 2 + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, C, H, W)."""
        spectrum = torch.fft.rfft2(x, dim=(1, 3))
        kept, modes = torch.zeros_like(spectrum), self.modes
        for rows, weights in ((slice(self.channels), 0), (slice(-self.channels, None), 1)):
            part = spectrum[:, rows, :, :modes]
            kept[:, rows, :, :modes] = part * self.weights[weights][:, None]
        return torch.fft.irfft2(kept, s=(x.shape[1], x.shape[3]), dim=(1, 3))


def transform_over_wrong_axes(setup: Setup) -> Places:
    """The Fourier layers transform over channels, as if these came last."""

    def change(network: nn.Module) -> nn.Module:
        for name, module in list(network.named_modules()):
            if isinstance(module, SpectralConv):
                parent, _, leaf = name.rpartition(".")
                width = module.weights1.shape[0]
                setattr(network.get_submodule(parent), leaf, WrongAxes(width, module.modes))
        return network

    setup.rework.append(change)
    return ("model", FAMILIES[setup.family].spectral, FAMILIES[setup.family].blocks)


def targets_shifted(setup: Setup) -> Places:
    """Targets of the next sample of a sliding window: each is shifted by a random number of cells."""
    random = torch.Generator().manual_seed(setup.seed)
    shifts = torch.randint(3, setup.task.size - 3, (len(setup.train.y), 2), generator=random).tolist()
    shifted: list[Any] = [
        target.roll(shift if target.ndim == 3 else shift[:1], (1, 2) if target.ndim == 3 else (1,))
        for target, shift in zip(setup.train.y, shifts, strict=True)
    ]
    setup.train = Samples(setup.train.x, torch.stack(shifted))
    return OUTCOME


FLAT = ("darcy", "holography", "weather", "deblurring", "vorticity")
KINDS = (
    Kind("rows and columns swapped", "target order", rows_and_columns_swapped, tasks=FLAT),
    Kind("upside down", "target order", upside_down),
    Kind("reshape instead of permute", "target order", reshaped_axes, tasks=("weather", "holography")),
    Kind("fields flattened wrongly", "target order", patches_scrambled, tasks=FLAT),
    Kind(
        "transform over the wrong axes",
        "transform axes",
        transform_over_wrong_axes,
        ("written", "unet"),
        FLAT,
    ),
    Kind("targets shifted at random", "unrelated target", targets_shifted),
)
