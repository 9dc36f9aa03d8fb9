"""Healthy trainings that are unusual on purpose: nothing about them deserves a warning."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.natural_failures.kinds.construction import drop_inputs, replace_activations
from benchmarks.natural_failures.kinds.targets import activate_output
from benchmarks.natural_failures.networks.families import FAMILIES
from benchmarks.natural_failures.setup import Samples, Setup
from benchmarks.natural_failures.tasks.contract import Task

NEURALOP = ("FNO", "TFNO", "UNO")


@dataclass(frozen=True)
class Control:
    """A healthy training; `apply` changes the plain one."""

    name: str
    apply: Callable[[Setup], None]
    families: Collection[str] = tuple(FAMILIES)
    tasks: Collection[str] | None = None

    def fits(self, task: Task, family: str) -> bool:
        """Return whether it exists for this family and task."""
        if task.dimension not in FAMILIES[family].dimensions or family not in self.families:
            return False
        return self.tasks is None or task.name in self.tasks


def _plain(setup: Setup) -> None:
    """The training that failures are compared with."""


def _layer_scale(setup: Setup) -> None:
    """Layer scale starts small, and is trained."""
    setup.design.more["layer_scale"] = 1e-3


def _zero_last_layer(setup: Setup) -> None:
    """The last layer starts at zero."""

    def change(network: nn.Module) -> nn.Module:
        with torch.no_grad():
            for parameter in network.get_submodule(FAMILIES[setup.family].projection).parameters():
                last = [*network.get_submodule(FAMILIES[setup.family].projection).parameters()][-2:]
                if any(parameter is each for each in last):
                    parameter.zero_()
        return network

    setup.rework.append(change)


def _warm_up(setup: Setup) -> None:
    """The rate rises from zero for a fifth of the steps, then falls as a cosine."""

    def factor(step: int, steps: int) -> float:
        rise = step / (steps / 5)
        return min(rise, 0.5 + 0.5 * math.cos(math.pi * step / steps))

    setup.rate_factor = factor


def _high_rate(setup: Setup) -> None:
    """A rate that is high, but well."""
    setup.rate = 1e-2 if setup.family in ("written", *NEURALOP) else 6e-3


def _dropout(setup: Setup) -> None:
    """A dropout of 0.1 on the input."""
    drop_inputs(setup, 0.1)


def _bfloat16(setup: Setup) -> None:
    """bfloat16 by autocast."""
    setup.autocast = torch.bfloat16


def _few_samples(setup: Setup) -> None:
    """Half of the samples."""
    setup.train = Samples(setup.train.x[:64], setup.train.y[:64])


def _scaled_by_maximum(setup: Setup) -> None:
    """Inputs from 0 to 1 by minimum and maximum, as images are."""
    low, high = setup.train.x.min(), setup.train.x.max()
    setup.train = Samples((setup.train.x - low) / (high - low), setup.train.y)
    setup.test = Samples((setup.test.x - low) / (high - low), setup.test.y)


def _twice_as_large(setup: Setup) -> None:
    """Inputs twice as large, targets half as large."""
    healthy = setup.decode
    setup.train = Samples(2 * setup.train.x, setup.train.y / 2)
    setup.test = Samples(2 * setup.test.x, setup.test.y / 2)
    setup.decode = lambda prediction: healthy(2 * prediction)


class Denormalised(nn.Module):
    """A network that normalises its input and returns physical values, as models for deployment do."""

    def __init__(self, network: nn.Module, setup: Setup) -> None:
        super().__init__()
        self.network = network
        axis = -1 if FAMILIES[setup.family].channels_last else 0
        for name, scale in (("x", setup.x_scale), ("y", setup.y_scale)):
            self.register_buffer(f"{name}_mean", scale.mean.movedim(0, axis))
            self.register_buffer(f"{name}_std", scale.std.movedim(0, axis))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return physical values for physical values."""
        return self.network((x - self.x_mean) / self.x_std) * self.y_std + self.y_mean


def _normalised_inside(setup: Setup) -> None:
    """The network normalises its input and de-normalises its output; the loss is relative to the spread."""
    setup.train, setup.test = setup.raw_train, setup.raw_test
    setup.decode = lambda prediction: prediction
    axis = -1 if FAMILIES[setup.family].channels_last else 0
    std = setup.y_scale.std.movedim(0, axis)
    setup.loss = lambda prediction, target: ((prediction - target) / std).square().mean()
    setup.rework.append(lambda network: Denormalised(network, setup))


def _positive_output(setup: Setup) -> None:
    """Positive targets, divided by their largest value, and a softplus at the output."""
    largest = float(setup.raw_train.y.max())
    setup.train = Samples(setup.train.x, setup.raw_train.y / largest)
    setup.test = Samples(setup.test.x, setup.raw_test.y / largest)
    setup.decode = lambda prediction: prediction * largest
    activate_output(setup, nn.Softplus())


def _relu(setup: Setup) -> None:
    """ReLUs instead of GELUs."""
    setup.rework.append(lambda network: replace_activations(network, nn.ReLU()))


def _silu(setup: Setup) -> None:
    """SiLUs instead of GELUs."""
    setup.rework.append(lambda network: replace_activations(network, nn.SiLU()))


def _norm(name: str) -> Callable[[Setup], None]:
    def apply(setup: Setup) -> None:
        setup.design.more["norm"] = name

    return apply


def _deeper(setup: Setup) -> None:
    """Four blocks."""
    setup.design.layers = 4


def _wider(setup: Setup) -> None:
    """Twice the width."""
    setup.design.width = 20


def _narrow(setup: Setup) -> None:
    """Two thirds of the width."""
    setup.design.width = 8


def _momentum(setup: Setup) -> None:
    """SGD with momentum, at a rate that suits it, and clipping at 1."""
    setup.rate, setup.clip = 0.05, 1.0
    setup.optimizer = lambda network: torch.optim.SGD(
        network.parameters(), setup.rate, momentum=0.9, nesterov=True
    )


def _clipping(setup: Setup) -> None:
    """Adam with clipping at 0.1, which many do."""
    setup.clip = 0.1


def _large_batches(setup: Setup) -> None:
    """Batches of eight."""
    setup.batch_size, setup.steps = 8, 100


def _noisy_loss(setup: Setup) -> None:
    """Batches of one sample: the loss goes up and down."""
    setup.batch_size, setup.steps = 1, 300


def _long(setup: Setup) -> None:
    """Twice the steps, with the rate to zero: nothing moves at the end."""
    setup.steps *= 2
    setup.rate_factor = lambda step, steps: 0.5 + 0.5 * math.cos(math.pi * step / steps)


def _padded(setup: Setup) -> None:
    """The domain is padded, and the padding is taken off where it was put."""
    if setup.family == "written":

        def change(network: nn.Module) -> nn.Module:
            network.padding = 4
            return network

        setup.rework.append(change)
    else:
        setup.design.more["domain_padding"] = 0.2


def _few_modes_smooth(setup: Setup) -> None:
    """Four modes for a smooth target, which needs no more."""
    setup.design.modes = 4


CONTROLS = {
    control.name: control
    for control in (
        Control("plain", _plain),
        Control("layer scale of 1e-3", _layer_scale, ("unet",)),
        Control("last layer starts at zero", _zero_last_layer),
        Control("warm-up and cosine", _warm_up),
        Control("high rate", _high_rate),
        Control("dropout 0.1", _dropout),
        Control("bfloat16", _bfloat16, ("unet", "fno", "hybrid")),
        Control("half of the samples", _few_samples),
        Control("inputs from 0 to 1", _scaled_by_maximum),
        Control(
            "input x2, target x0.5",
            _twice_as_large,
            tasks=("burgers", "darcy", "weather", "deblurring", "vorticity", "seismic"),
        ),
        Control(
            "normalised inside",
            _normalised_inside,
            ("written", "unet", *NEURALOP),
            ("weather", "darcy", "deblurring", "vorticity", "seismic"),
        ),
        Control("softplus at the output", _positive_output, ("written", "unet", *NEURALOP), ("darcy",)),
        Control("ReLU", _relu),
        Control("SiLU", _silu),
        Control("instance norm", _norm("instance_norm"), ("FNO", "TFNO")),
        Control("group norm", _norm("group_norm"), ("FNO", "TFNO")),
        Control("deeper", _deeper, ("fno", "FNO", "TFNO", "written", "unet")),
        Control("wider", _wider),
        Control("narrow", _narrow),
        Control("SGD with momentum", _momentum, ("FNO", "written", "unet", "UNO")),
        Control("clipping at 0.1", _clipping),
        Control("batches of eight", _large_batches),
        Control("batches of one", _noisy_loss),
        Control("twice the steps", _long),
        Control("padded", _padded, ("written", "FNO", "TFNO")),
        Control("few modes, smooth target", _few_modes_smooth, tasks=("darcy",)),
    )
}
