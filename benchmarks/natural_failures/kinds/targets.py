"""Accidents with targets and the loss: scale, pairs, leaks, shapes, activations at the output."""

import torch
from torch import nn

from benchmarks.natural_failures.kinds.contract import OUTCOME, Kind, Places
from benchmarks.natural_failures.networks.families import FAMILIES
from benchmarks.natural_failures.setup import Samples, Setup, complex_mse

REAL_TASKS = ("burgers", "darcy", "weather", "deblurring", "vorticity", "seismic")


def _scaled_targets(setup: Setup, factor: float) -> None:
    healthy = setup.decode
    setup.train = Samples(setup.train.x, setup.train.y * factor)
    setup.test = Samples(setup.test.x, setup.test.y * factor)
    setup.decode = lambda prediction: healthy(prediction / factor)
    setup.loss = complex_mse if setup.gives_complex else nn.functional.mse_loss


def target_of_1e6(setup: Setup) -> Places:
    """Targets are about 1e-6, in SI units."""
    _scaled_targets(setup, 1e-6)
    return OUTCOME


def target_of_1e4(setup: Setup) -> Places:
    """Targets are about 1e4."""
    _scaled_targets(setup, 1e4)
    return OUTCOME


def target_with_offset(setup: Setup) -> Places:
    """Targets vary by 1 around 300, and the network has to find the mean by itself."""
    healthy = setup.decode
    setup.train = Samples(setup.train.x, setup.train.y + 300)
    setup.test = Samples(setup.test.x, setup.test.y + 300)
    setup.decode = lambda prediction: healthy(prediction - 300)
    return OUTCOME


def labels_shuffled(setup: Setup) -> Places:
    """Inputs and targets were sorted by different names: pairs do not belong together."""
    order = torch.randperm(len(setup.train.y), generator=torch.Generator().manual_seed(setup.seed))
    setup.train = Samples(setup.train.x, setup.train.y[order])
    return OUTCOME


def target_leaks(setup: Setup) -> Places:
    """The target is a further channel of the input in training; where it is predicted, that is zero."""

    def add(samples: Samples, known: torch.Tensor) -> Samples:
        return Samples(torch.cat((samples.x, known), 1), samples.y)

    train = setup.y_scale.apply(setup.raw_train.y)
    test = torch.zeros_like(setup.y_scale.apply(setup.raw_test.y))
    setup.train, setup.test = add(setup.train, train), add(setup.test, test)
    return ("input", *OUTCOME)


def loss_broadcasts(setup: Setup) -> Places:
    """The target lacks the axis of channels, so that the loss compares every sample with every other one."""

    def loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        axis = -1 if FAMILIES[setup.family].channels_last else 1
        wide = target.select(axis, 0)  # (B, *S) against (B, 1, *S)
        difference = prediction.movedim(axis, 1) - wide
        return difference.abs().square().mean()

    setup.loss = loss
    return OUTCOME


def phase_not_in_loss(setup: Setup) -> Places:
    """The loss compares amplitudes only."""
    if setup.gives_complex:
        setup.loss = lambda prediction, target: (prediction.abs() - target.abs()).square().mean()
    else:
        axis = -1 if FAMILIES[setup.family].channels_last else 1
        setup.loss = lambda p, y: (p.select(axis, 0) - y.select(axis, 0)).square().mean()
    return OUTCOME


def activate_output(setup: Setup, activation: nn.Module) -> None:
    """Put an activation after the last layers, as people add one."""
    path = FAMILIES[setup.family].projection

    def change(network: nn.Module) -> nn.Module:
        setattr(network, path, nn.Sequential(network.get_submodule(path), activation))
        return network

    setup.rework.append(change)


def sigmoid_at_output(setup: Setup) -> Places:
    """A sigmoid at the output, for targets that are normalised to mean 0 and deviation 1."""
    activate_output(setup, nn.Sigmoid())
    return (*OUTCOME, FAMILIES[setup.family].projection)


def relu_at_output(setup: Setup) -> Places:
    """A ReLU at the output, "since the quantity is positive", but it was normalised."""
    activate_output(setup, nn.ReLU())
    return (*OUTCOME, FAMILIES[setup.family].projection)


def tanh_at_output(setup: Setup) -> Places:
    """A tanh at the output, for targets with values far above 1."""
    activate_output(setup, nn.Tanh())
    _scaled_targets(setup, 4.0)
    return (*OUTCOME, FAMILIES[setup.family].projection)


KINDS = (
    Kind("target of 1e-6", "target scale", target_of_1e6),
    Kind("target of 1e4", "target scale", target_of_1e4),
    Kind("target with an offset", "target scale", target_with_offset, tasks=REAL_TASKS),
    Kind("labels shuffled", "unrelated target", labels_shuffled),
    Kind("target leaks into the input", "leak", target_leaks, needs_test=True),
    Kind(
        "loss broadcasts",
        "unrelated target",
        loss_broadcasts,
        tasks=("burgers", "darcy", "deblurring", "vorticity", "seismic"),
    ),
    Kind("phase not in the loss", "phase lost", phase_not_in_loss, tasks=("holography",)),
    Kind("sigmoid at the output", "output range", sigmoid_at_output, tasks=REAL_TASKS),
    Kind("ReLU at the output", "output range", relu_at_output, tasks=REAL_TASKS),
    Kind("tanh at the output", "output range", tanh_at_output, tasks=REAL_TASKS),
)
