"""Accidents in how a network is built: activations, modes, padding, smoothing, depth, precision."""

import re

import torch
from torch import nn

from benchmarks.natural_failures.kinds.contract import OUTCOME, Kind, Places
from benchmarks.natural_failures.networks.families import FAMILIES
from benchmarks.natural_failures.networks.fourier_unet import FourierUNet
from benchmarks.natural_failures.networks.written_fno import SpectralConv, WrittenFNO
from benchmarks.natural_failures.setup import Setup

SHARP_TASKS = ("burgers", "holography", "deblurring", "weather")


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
    return ("model", "output", ".*")


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
    return ("model", ".*")


def too_few_modes(setup: Setup) -> Places:
    """Two modes, with a decoder that can only follow them: the local branch is smoothed out."""
    setup.design.modes = 1 if setup.seed % 2 else 2
    local = re.compile(r"^w\d$|fno_skips|local_conv$|\.local$")

    def change(network: nn.Module) -> nn.Module:
        for name, module in network.named_modules():
            if local.search(name):
                _remove_local(module)
        return network

    setup.rework.append(change)
    return (*OUTCOME, FAMILIES[setup.family].spectral, FAMILIES[setup.family].blocks)


def _remove_local(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(0.01).requires_grad_(False)


class Smoothed(nn.Module):
    """A network whose output is pooled and brought back to size by interpolation, as in a cheap decoder."""

    def __init__(self, network: nn.Module, factor: int) -> None:
        super().__init__()
        self.network, self.factor = network, factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the smoothed output, in the layout of the network."""
        output = self.network(x)
        first = output if output.ndim != 5 else output[:, :, :, 0].permute(0, 3, 1, 2)
        is_last = output.ndim < 5 and output.shape[-1] <= 4
        first = first.movedim(-1, 1) if is_last else first
        pool = nn.functional.avg_pool1d if first.ndim == 3 else nn.functional.avg_pool2d
        mode = "linear" if first.ndim == 3 else "bilinear"
        smooth = nn.functional.interpolate(pool(first, self.factor), size=first.shape[2:], mode=mode)
        if output.ndim == 5:
            return smooth.permute(0, 2, 3, 1).unsqueeze(3)
        return smooth.movedim(1, -1) if is_last else smooth


def output_smoothed(setup: Setup) -> Places:
    """The last upsampling starts from a grid that is several times coarser."""
    setup.rework.append(lambda network: Smoothed(network, 4 if setup.task.dimension == 2 else 8))
    return (*OUTCOME, ".*")


def crop_at_the_wrong_end(setup: Setup) -> Places:
    """The domain is padded at its end, and the padding is taken off at its start."""

    def change(network: nn.Module) -> nn.Module:
        assert isinstance(network, WrittenFNO)
        network.padding, network.crop_at_start = 6, True
        for module in network.modules():
            if isinstance(module, nn.Conv1d | nn.Conv2d):
                _remove_local(module)
        return network

    setup.rework.append(change)
    return (*OUTCOME, ".*")


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
    return ("model", "input", ".*")


def too_much_dropout(setup: Setup) -> Places:
    """A dropout of 0.9, which was meant as the share that is kept."""

    def change(network: nn.Module) -> nn.Module:
        if isinstance(network, FourierUNet):
            network.dropout.p = 0.9
            return nn.Sequential(nn.Dropout(0.9), network)
        return nn.Sequential(nn.Dropout(0.9), network)

    setup.rework.append(change)
    return ("model", *OUTCOME, ".*")


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
    return ("model", ".*")


KINDS = (
    Kind("no activation", "no activation", no_activation),
    Kind("ReLUs that died", "dead activations", dead_relus),
    Kind("too few modes", "band missing", too_few_modes, ("FNO", "TFNO", "written", "fno"), SHARP_TASKS),
    Kind("output smoothed", "band missing", output_smoothed, tasks=SHARP_TASKS),
    Kind("padding cropped at the wrong end", "padding", crop_at_the_wrong_end, ("written",)),
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
