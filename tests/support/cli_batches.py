"""Batches as training scripts have them, for `--batches`, and functions for `--prediction`."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

X = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = 2 * X.roll(1, -1)

dataset = TensorDataset(X, Y)
loader = DataLoader(dataset, batch_size=3)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x, mask=None):
        return self.conv(x if mask is None else x * mask)


class Graph:
    """Like a graph of torch_geometric: no mapping, but with keys."""

    def __init__(self, **stored: torch.Tensor) -> None:
        self._stored = stored

    def keys(self):
        return list(self._stored)

    def __getitem__(self, key):
        return self._stored[key]

    def to(self, device):
        return Graph(**{key: tensor.to(device) for key, tensor in self._stored.items()})


def dicts():
    yield from ({"y": y, "x": x} for x, y in loader)


def named():
    yield from ({"mask": (x > 0.5).float(), "image": x, "x": x, "truth": y, "id": 7} for x, y in loader)


def with_mask():
    yield from ((x, None, y) for x, y in loader)


def arrays():
    yield from ((x.numpy(), y.numpy()) for x, y in loader)


def graphs():
    yield from (Graph(x=x, y=y) for x, y in loader)


def double(output, batch):
    return 2 * output, batch[1]


def failing(output, batch):
    return output, batch["y"]


def as_complex(output, batch):
    prediction = torch.view_as_complex(output.contiguous()).movedim(-1, 1)
    return prediction, torch.polar(batch["amplitude"], batch["phase"])


NUMBERS = np.arange(3)
