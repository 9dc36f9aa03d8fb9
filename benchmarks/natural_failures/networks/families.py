"""The families by name: how a network is made for a task, and how people call its parts."""

import contextlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from benchmarks.natural_failures.networks.fourier_unet import FourierUNet
from benchmarks.natural_failures.networks.written_fno import WrittenFNO
from benchmarks.natural_failures.tasks.contract import Task
from fno_telemetry import plugins


@dataclass
class Design:
    """What somebody chooses about a network; kinds of failures choose badly."""

    width: int = 12
    modes: int = 6
    layers: int = 2
    more: dict[str, Any] = field(default_factory=dict)  # further arguments of the library's class


@dataclass(frozen=True)
class Family:
    """A kind of network: `make`, and its parts by the start of their parameters' names."""

    make: Callable[[Task, Design, int], nn.Module]  # the last one: channels of the input
    lifting: str
    blocks: str
    projection: str
    spectral: str  # regular expression of the modules that transform
    dimensions: tuple[int, ...] = (2,)
    channels_last: bool = False
    five_axes: bool = False  # (B, H, W, C, parts)
    is_complex: bool = True  # has complex parameters


def _built_in(name: str) -> Callable[[Task, Design, int], nn.Module]:
    def make(task: Task, design: Design, inputs: int) -> nn.Module:
        depth = (
            {"fno_blocks": design.layers, "cnn_blocks": 1} if name == "fno" else {"n_blocks": design.layers}
        )
        arguments = {"hidden_channels": design.width, "modes": design.modes, "C": 1, **depth, **design.more}
        outputs = arguments.pop("out_channels", task.targets)
        return plugins.load("architectures", name).build(
            in_channels=inputs, out_channels=outputs, **arguments
        )

    return make


def _neuralop(name: str) -> Callable[[Task, Design, int], nn.Module]:
    def make(task: Task, design: Design, inputs: int) -> nn.Module:
        from neuralop import models

        width, modes = design.width, 2 * design.modes
        arguments: dict[str, Any] = {"n_layers": design.layers, "hidden_channels": width}
        if name == "UNO":
            small = min(modes, task.size // 2 - 2)
            arguments |= {
                "n_layers": 3,
                "lifting_channels": 2 * width,
                "projection_channels": 2 * width,
                "uno_out_channels": [width, 2 * width, width],
                "uno_n_modes": [[modes] * 2, [small] * 2, [modes] * 2],
                "uno_scalings": [[1, 1], [0.5, 0.5], [2, 2]],
                "channel_mlp_skip": "linear",
            }
        else:
            arguments["n_modes"] = (modes,) * task.dimension
        if name == "TFNO":
            arguments |= {"factorization": "tucker", "rank": 0.5}
        arguments |= design.more
        # It prints what it makes.
        with contextlib.redirect_stdout(io.StringIO()):
            return getattr(models, name)(in_channels=inputs, out_channels=task.targets, **arguments)

    return make


def _written(task: Task, design: Design, inputs: int) -> nn.Module:
    return WrittenFNO(
        inputs, task.targets, task.dimension, design.width, design.modes, design.layers, **design.more
    )


def _unet(task: Task, design: Design, inputs: int) -> nn.Module:
    modes = min(design.modes, task.size // 4)
    return FourierUNet(inputs, task.targets, design.width, modes, design.layers, **design.more)


FAMILIES: Mapping[str, Family] = {
    "fno": Family(_built_in("fno"), "lifter", "fno_blocks", "output_proj", r"\.spectral$", five_axes=True),
    "hybrid": Family(
        _built_in("hybrid"), "lifter", "encoder_blocks", "output_proj", r"\.spectral$", five_axes=True
    ),
    "FNO": Family(
        _neuralop("FNO"), "lifting", "fno_blocks", "projection", r"fno_blocks\.convs\.\d+$", (1, 2, 3)
    ),
    "TFNO": Family(
        _neuralop("TFNO"), "lifting", "fno_blocks", "projection", r"fno_blocks\.convs\.\d+$", (1, 2, 3)
    ),
    "UNO": Family(_neuralop("UNO"), "lifting", "fno_blocks", "projection", r"\.convs\.0$"),
    "written": Family(_written, "fc0", "conv", "fc2", r"^conv\d+$", (1, 2), channels_last=True),
    "unet": Family(_unet, "stem", "mixers", "head", r"\.spectral$"),
}


def make_network(family: str, task: Task, design: Design, inputs: int) -> nn.Module:
    """Return a network as its library makes it, by the global random numbers."""
    return FAMILIES[family].make(task, design, inputs)


def to_prediction(family: str, task: Task, output: torch.Tensor) -> torch.Tensor:
    """Return what a loop compares with the target.

    Of ours that is (B, K, H, W), for complex tasks (B, 1, H, W); of all others the output itself.
    """
    if not FAMILIES[family].five_axes:
        return output
    if task.is_complex:
        return torch.view_as_complex(output.permute(0, 3, 1, 2, 4).contiguous())
    return output[:, :, :, 0].permute(0, 3, 1, 2)
