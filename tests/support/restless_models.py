"""Models that draw, count and write, and all of a model and process that a capture must leave alone."""

import random

import numpy as np
import torch
from torch import nn

from support.notes import Notes


class Restless(nn.Module):
    """Draws random numbers of three kinds, counts in its buffers, and notes what it returned."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("replaced", torch.zeros(2))
        self.register_buffer("undefined", torch.full((2,), torch.nan))
        self.returned = Notes()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.calls.data.mul_(2)
        self.replaced = self.replaced + 1
        shift = torch.rand(()) + random.random() + np.random.rand()
        y = self.dropout(self.norm(self.convolution(x))) + self.calls + shift
        y = y + nn.functional.dropout(y, 0.5)
        self.returned.append(y.detach().clone())
        return y


class Squeezed(nn.Module):
    """Writes into what it is given, and notes what that was."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.entered = Notes()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.entered.append(x.detach().clone())
        return self.layer(x.mul_(2))


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def state(model: nn.Module) -> dict[str, object]:
    """Everything that a capture must not change, down to the bits and the tensor objects."""
    return {
        "tensors": {
            name: (id(t), bits(t)) for name, t in [*model.named_parameters(), *model.named_buffers()]
        },
        "names": list(model.state_dict()),
        "training": [module.training for module in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "gradients": [None if p.grad is None else bits(p.grad) for p in model.parameters()],
        "torch": bits(torch.get_rng_state()),
        "numpy": repr(np.random.get_state()),
        "python": random.getstate(),
        "grad_mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "dtype": torch.get_default_dtype(),
    }


def mixed(model: nn.Module) -> nn.Module:
    """Put every other module in eval mode, and freeze a parameter."""
    for module in list(model.modules())[::2]:
        module.training = False
    next(model.parameters()).requires_grad_(False)
    return model
