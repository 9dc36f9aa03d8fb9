"""Accidents in how a network is built: activations, modes, padding, smoothing, depth, precision."""

import re

import torch
from torch import nn

from benchmarks.natural_failures.kinds.contract import OUTCOME, Kind, Places
from benchmarks.natural_failures.networks.families import FAMILIES
from benchmarks.natural_failures.networks.written_fno import SpectralConv, WrittenFNO
from benchmarks.natural_failures.setup import Setup

SHARP_TASKS = ("burgers", "holography", "deblurring", "seismic")


class Identity(nn.Module):
    """Returns its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input."""
        return x


def replace_activations(network: nn.Module, activation: nn.Module) -> nn.Module:
    """Put an activation where the network has GELUs, as modules or as functions."""
    for module in network.modules():
        for name, child in list(module.named_children()):
            if isinstance(child, nn.GELU):
                setattr(module, name, activation)
        for name in ("act", "non_linearity"):
            if callable(getattr(module, name, None)) and not isinstance(getattr(module, name), nn.Module):
                setattr(module, name, activation)
    return network


def no_activation(setup: Setup) -> Places:
    """All activations are the identity."""
    setup.rework.append(lambda network: replace_activations(network, Identity()))
    return ("model", "output", "act|gelu|identity|non_linearity")


def dead_relus(setup: Setup) -> Places:
    """ReLUs, biases that start far below zero in the blocks, and no norm."""
    blocks = FAMILIES[setup.family].blocks

    def change(network: nn.Module) -> nn.Module:
        replace_activations(network, nn.ReLU())
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if (
                    name.endswith("bias")
                    and parameter.ndim == 1
                    and name.startswith((blocks, "w", "lift", "fc1"))
                ):
                    parameter.sub_(3.0 if setup.seed % 2 else 8.0)
        return network

    setup.rework.append(change)
    return ("model", rf"{blocks}|relu|act|^w|fc1|lift")


def too_few_modes(setup: Setup) -> Places:
    """One or two modes, from an example for another problem, where the target has far more."""
    setup.design.modes = 1 if setup.seed % 2 else 2
    return (*OUTCOME, FAMILIES[setup.family].spectral, FAMILIES[setup.family].blocks)


class Smoothed(nn.Module):
    """Pools (B, C, *S) and brings it back to size by interpolation, as a cheap decoder does."""

    def __init__(self, factor: int, channels_last: bool) -> None:
        super().__init__()
        self.factor, self.channels_last = factor, channels_last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the smoothed fields in the layout in which they came."""
        fields = x.movedim(-1, 1) if self.channels_last else x
        pool = nn.functional.avg_pool1d if fields.ndim == 3 else nn.functional.avg_pool2d
        mode = "linear" if fields.ndim == 3 else "bilinear"
        smooth = nn.functional.interpolate(pool(fields, self.factor), size=fields.shape[2:], mode=mode)
        return smooth.movedim(1, -1) if self.channels_last else smooth


def output_smoothed(setup: Setup) -> Places:
    """The last upsampling starts from a grid that is several times coarser."""
    family = FAMILIES[setup.family]

    def change(network: nn.Module) -> nn.Module:
        last = network.get_submodule(family.projection)
        smoothed = Smoothed(4 if setup.task.dimension == 2 else 8, family.channels_last)
        setattr(network, family.projection, nn.Sequential(last, smoothed))
        return network

    setup.rework.append(change)
    return (*OUTCOME, family.projection)


def crop_at_the_wrong_end(setup: Setup) -> Places:
    """The domain is padded at its end, and the padding is taken off at its start."""

    def change(network: nn.Module) -> nn.Module:
        assert isinstance(network, WrittenFNO)
        network.padding, network.crop_at_start = 6, True
        return network

    setup.rework.append(change)
    return OUTCOME


def residual_drift(setup: Setup) -> Places:
    """A deep stack of residual updates that nothing normalises, whose updates all point the same way."""
    setup.design.layers = 8 if setup.family == "fno" else setup.design.layers
    blocks = FAMILIES[setup.family].blocks

    def change(network: nn.Module) -> nn.Module:
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name.startswith(blocks) and ("local" in name or "mlp" in name) and name.endswith("bias"):
                    parameter.add_(20.0)
        return network

    setup.rework.append(change)
    return ("model", blocks)


def spectral_init_without_scale(setup: Setup) -> Places:
    """Spectral weights start at order 1 instead of 1/width, and the rate is too low to come back."""

    def change(network: nn.Module) -> nn.Module:
        with torch.no_grad():
            for name, module in network.named_modules():
                if re.search(FAMILIES[setup.family].spectral, name):
                    for parameter in module.parameters():
                        parameter.mul_(40.0)
        return network

    setup.rework.append(change)
    return ("model", FAMILIES[setup.family].spectral, FAMILIES[setup.family].blocks)


def half_overflows(setup: Setup) -> Places:
    """Coefficients are held in half precision between the transforms; inputs of some size overflow it."""
    factor = 3e3
    setup.train = type(setup.train)(setup.train.x * factor, setup.train.y)
    setup.test = type(setup.test)(setup.test.x * factor, setup.test.y)

    def change(network: nn.Module) -> nn.Module:
        for module in network.modules():
            if isinstance(module, SpectralConv):
                module.half = True
        return network

    setup.rework.append(change)
    return ("input", FAMILIES[setup.family].spectral, FAMILIES[setup.family].blocks)


def drop_inputs(setup: Setup, share: float) -> None:
    """Put a dropout in front of the lifting."""
    lifting = FAMILIES[setup.family].lifting

    def change(network: nn.Module) -> nn.Module:
        setattr(network, lifting, nn.Sequential(nn.Dropout(share), network.get_submodule(lifting)))
        return network

    setup.rework.append(change)


def too_much_dropout(setup: Setup) -> Places:
    """A dropout of 0.9, which was meant as the share that is kept."""
    drop_inputs(setup, 0.9)
    return ("model", *OUTCOME, FAMILIES[setup.family].lifting)


def batch_statistics_wrong(setup: Setup) -> Places:
    """The momentum of the batch norms is far too small: their running statistics stay where they began."""

    def change(network: nn.Module) -> nn.Module:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1e-4
        return network

    setup.rework.append(change)
    setup.train = type(setup.train)(2.0 * setup.train.x + 3, setup.train.y)
    setup.test = type(setup.test)(2.0 * setup.test.x + 3, setup.test.y)
    return ("model", r"stem|merge|norm")


KINDS = (
    Kind("no activation", "no activation", no_activation),
    Kind("ReLUs that died", "dead activations", dead_relus, ("fno", "hybrid", "FNO", "TFNO", "written")),
    Kind("too few modes", "band missing", too_few_modes, ("FNO", "TFNO", "written"), SHARP_TASKS),
    Kind("output smoothed", "band missing", output_smoothed, tasks=SHARP_TASKS),
    Kind("padding cropped at the wrong end", "padding", crop_at_the_wrong_end, ("written",), SHARP_TASKS),
    Kind("drift along the residual path", "residual drift", residual_drift, ("fno", "unet")),
    Kind(
        "spectral weights too large",
        "residual drift",
        spectral_init_without_scale,
        ("fno", "hybrid", "FNO", "written"),
    ),
    Kind("half precision overflows", "overflow", half_overflows, ("written",)),
    Kind("too much dropout", "dropout", too_much_dropout),
    Kind("batch statistics wrong in eval", "batch statistics", batch_statistics_wrong, ("unet",)),
)
