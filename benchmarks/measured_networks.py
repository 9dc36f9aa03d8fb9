"""The networks that the benchmarks measure, each with a batch of random fields."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import nn

from fno_telemetry import plugins


class Subject(NamedTuple):
    """A network in evaluation mode and a batch for it."""

    model: nn.Module
    batch: torch.Tensor


def _fno() -> Subject:
    architecture = plugins.load("architectures", "fno")
    model = architecture.build(**architecture.defaults(1, 64) | {"hidden_channels": 32})
    return Subject(model.eval(), torch.rand(8, 1, 64, 64))


def _hybrid() -> Subject:
    architecture = plugins.load("architectures", "hybrid")
    return Subject(architecture.build(**architecture.defaults(1, 64)).eval(), torch.rand(8, 1, 64, 64))


def _tiny() -> Subject:
    architecture = plugins.load("architectures", "fno")
    model = architecture.build(C=1, modes=2, hidden_channels=2, fno_blocks=4, cnn_blocks=2)
    return Subject(model.eval(), torch.rand(2, 1, 8, 8))


def _neuraloperator(channels: int, modes: tuple[int, ...], *shape: int) -> Subject:
    from neuralop import models

    model = models.FNO(n_modes=modes, in_channels=1, out_channels=1, hidden_channels=channels, n_layers=4)
    return Subject(model.eval(), torch.rand(shape[0], 1, *shape[1:]))


NETWORKS: Mapping[str, Callable[[], Subject]] = {
    "fno, 32 channels, 64 x 64, batch 8": _fno,
    "neuraloperator FNO, 64 channels, 128 x 128, batch 2": lambda: _neuraloperator(64, (16, 16), 2, 128, 128),
    "neuraloperator FNO, 32 channels, 32 x 32 x 32, batch 2": lambda: _neuraloperator(
        32, (8, 8, 8), 2, 32, 32, 32
    ),
    "hybrid, 64 x 64, batch 8": _hybrid,
    "tiny fno, 2 channels, 8 x 8, batch 2": _tiny,
}


def make(name: str) -> Subject:
    """Return the network and batch of this name, the same at every call."""
    torch.manual_seed(0)
    return NETWORKS[name]()
