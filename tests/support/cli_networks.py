"""Networks, batches and loose ends for `--model` and `--batches`."""

import os
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import nn


class Plain(nn.Module):
    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, padding=1)

    def forward(self, x):
        return self.conv(x)


class Scaled(Plain):
    def forward(self, x, scale):
        return self.conv(x) * scale


class Silenced(Plain):
    """All of its weights are zero."""

    def __init__(self) -> None:
        super().__init__()
        nn.init.zeros_(self.conv.weight), nn.init.zeros_(self.conv.bias)


class Unused(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(2, 2)


class Staged(Plain):
    """Has another activation in stage 1, and pads in stage 2; the stage is stored with the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(2, 1, 1)
        self.register_buffer("stage", torch.zeros(()))

    def forward(self, x):
        x = self.conv(nn.functional.pad(x, (0, 4)) if self.stage == 2 else x)
        # Where a module takes an activation as it is, a plan does not ask which function made it.
        return self.last((x.tanh() if self.stage == 1 else x.relu()) * 2)


class Operator(nn.Module):
    """A spectral layer beside a norm, which is the local branch here."""

    def __init__(self) -> None:
        super().__init__()
        self.lift, self.spectral, self.beside = nn.Conv2d(1, 4, 1), Low(), nn.InstanceNorm2d(4)

    def forward(self, x):
        x = self.lift(x)
        return (self.spectral(x) + self.beside(x)).tanh()


class Low(nn.Module):
    def forward(self, x):
        return torch.fft.irfft2(torch.fft.rfft2(x), s=x.shape[-2:])


class Counting(nn.Module):
    """Has only a module whose output is no number that could be measured."""

    def __init__(self) -> None:
        super().__init__()
        self.signs = Signs()

    def forward(self, x):
        return self.signs(x)


class Signs(nn.Module):
    def forward(self, x):
        return x > 0


class Raising(Plain):
    def __init__(self, error: str = "RuntimeError") -> None:
        super().__init__()
        self.error = {
            "RuntimeError": RuntimeError("first line\nsecond line"),
            "EOFError": EOFError(),
            "SystemExit": SystemExit(0),
            "MemoryError": MemoryError(),
            "KeyboardInterrupt": KeyboardInterrupt(),
        }[error]

    def forward(self, x):
        raise self.error


class RaisesInOneProcess(Plain):
    """Fails in the second of several processes."""

    def forward(self, x):
        if os.environ.get("RANK") == "1":
            raise RuntimeError("not here")
        return self.conv(x)


class Interrupted(Plain):
    """Raises KeyboardInterrupt when its bias is above 1."""

    def forward(self, x):
        if self.conv.bias.max() > 1:
            raise KeyboardInterrupt
        return self.conv(x)


class Terminated(Plain):
    """Is sent SIGTERM twice, as by `timeout`, when its bias is above 1."""

    def forward(self, x):
        if self.conv.bias.max() > 1:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(20)  # which the signal ends
        return self.conv(x)


def raising():
    raise ValueError("no weights\nanywhere")


def leaving():
    raise SystemExit(0)


def number():
    return 5


def with_path(weights: str):
    return Plain()


def tuples():
    for _ in range(2):
        yield torch.rand(2, 1, 8, 8), torch.tensor(3.0)


def dicts():
    yield {"x": torch.rand(2, 1, 8, 8), "scale": torch.tensor(3.0)}


def tensors():
    yield torch.rand(2, 1, 8, 8)
    yield torch.rand(9, 1, 8, 8)


def nothing():
    return []


def arrays():
    yield [1, 2, 3]


def breaking():
    yield torch.rand(2, 1, 8, 8)
    raise OSError("the disk is gone")


NOT_BATCHES = 7


def loud_square(output, batch):
    sys.stdout.write("a loss that prints\n")
    return output.square().mean()


def square(output, batch):
    return output.square().mean()


def per_sample(output, batch):
    return output.square().flatten(1).mean(1)


def dividing(output, batch):
    return 1 / 0


@dataclass(frozen=True)
class Fields:
    x: torch.Tensor
    name: str = "fields"


@dataclass
class Sample:
    fields: Fields
    scale: torch.Tensor = field(default_factory=lambda: torch.tensor(3.0))


class Labelled(NamedTuple):
    x: torch.Tensor
    labels: tuple[str, ...] = ()


class TakesSample(Plain):
    def forward(self, sample: Sample):
        return self.conv(sample.fields.x) * sample.scale


class TakesLabelled(Plain):
    def forward(self, x, labels):
        return self.conv(x)


def samples():
    """Yield a dataclass with a frozen one in it."""
    for _ in range(2):
        yield Sample(Fields(torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))))


def labelled():
    """Yield named tuples, whose parts are positional arguments."""
    yield Labelled(torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)), ("a", "b"))
