"""A training script as data: what a healthy one does, and what kinds of failures change about it."""

import copy
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from benchmarks.natural_failures.networks.families import FAMILIES, Design, make_network, to_prediction
from benchmarks.natural_failures.tasks.contract import Task
from benchmarks.natural_failures.tasks.known import Samples

RATE, WEIGHT_DECAY = 3e-3, 1e-4
STEPS, BATCH = 120, 4
CAPTURED = 16  # samples in a report

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation by channel, (C, 1, …)."""

    mean: torch.Tensor
    std: torch.Tensor

    @classmethod
    def of(cls, fields: torch.Tensor) -> "Scale":
        """Return that of (N, C, *S)."""
        axes = (0, *range(2, fields.ndim))
        return cls(fields.mean(axes, keepdim=True)[0], fields.std(axes, keepdim=True)[0])

    def apply(self, fields: torch.Tensor) -> torch.Tensor:
        """Return the fields with mean 0 and standard deviation 1."""
        return (fields - self.mean) / self.std

    def undo(self, fields: torch.Tensor) -> torch.Tensor:
        """Return the fields in their own units."""
        return fields * self.std + self.mean


@dataclass
class Setup:
    """All that a training consists of; a kind of failure changes some of it before the network is made.

    `train` and `test` are what the loaders give, channels first. `raw_train` and `raw_test` stay in physical
    units, and the test error is taken of the latter.
    """

    task: Task
    family: str
    seed: int
    raw_train: Samples
    raw_test: Samples
    x_scale: Scale = field(init=False)
    y_scale: Scale = field(init=False)
    train: Samples = field(init=False)
    test: Samples = field(init=False)
    design: Design = field(default_factory=Design)
    rework: list[Callable[[nn.Module], nn.Module]] = field(default_factory=list)  # of the network, in order
    before_training: Callable[[nn.Module], None] | None = None  # such as loading weights
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] = field(init=False)
    rate: float = RATE
    weight_decay: float = WEIGHT_DECAY
    rate_factor: Callable[[int, int], float] = lambda step, steps: 1.0
    loss: Loss = nn.functional.mse_loss
    steps: int = STEPS
    batch_size: int = BATCH
    change_batch: Callable[[int, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]] | None = None
    clip: float | None = None
    clears_gradients: bool = True
    autocast: torch.dtype | None = None
    watched: Collection[int] = ()  # steps that are recorded besides those of the schedule
    facts: dict[str, Any] = field(default_factory=dict)  # what a kind wants to have kept

    def __post_init__(self) -> None:
        self.x_scale, self.y_scale = Scale.of(self.raw_train.x), Scale.of(self.raw_train.y)
        self.train, self.test = self.encode(self.raw_train), self.encode(self.raw_test)
        self.optimizer = lambda network: torch.optim.AdamW(
            network.parameters(), self.rate, weight_decay=self.weight_decay
        )
        if FAMILIES[self.family].channels_last:
            self.loss = relative_l2
        elif self.gives_complex:
            self.loss = complex_mse

    @property
    def gives_complex(self) -> bool:
        """Whether targets and predictions are complex fields, as those of ours for amplitude and phase."""
        return self.task.is_complex and FAMILIES[self.family].five_axes

    def encode(self, raw: Samples) -> Samples:
        """Return pairs as a healthy loader gives them: complex ones as they are, all others normalised."""
        y = to_complex(raw.y) if self.gives_complex else self.y_scale.apply(raw.y)
        return Samples(self.x_scale.apply(raw.x), y)

    def decode(self, prediction: torch.Tensor) -> torch.Tensor:
        """Return a prediction, channels first, in the units of the raw target; complex ones as they are."""
        return prediction if self.gives_complex else self.y_scale.undo(prediction)

    def make(self) -> nn.Module:
        """Return the network, made by the seed."""
        torch.manual_seed(self.seed)
        network = make_network(self.family, self.task, copy.deepcopy(self.design), self.train.x.shape[1])
        for change in self.rework:
            network = change(network)
        if self.before_training is not None:
            self.before_training(network)
        return network

    def batch_of(self, samples: Samples, chosen: slice | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a batch as the loader gives it, in the layout of the family."""
        x, y = samples.x[chosen], samples.y[chosen]
        if FAMILIES[self.family].channels_last:
            x, y = x.movedim(1, -1), y.movedim(1, -1)
        return x.contiguous(), y.contiguous()

    def predict(self, output: Any) -> torch.Tensor:
        """Return what the loop compares with the target of a batch."""
        return to_prediction(self.family, self.task, output)

    def captured(self, samples: Samples) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return the batches of a report."""
        starts = range(0, min(CAPTURED, len(samples.x)), self.batch_size)
        return [self.batch_of(samples, slice(start, start + self.batch_size)) for start in starts]

    def test_error(self, network: nn.Module) -> float:
        """Return ‖prediction - truth‖ / ‖truth - its mean‖ of the test samples, channels weighted alike."""
        network.eval()
        parts = []
        with torch.no_grad():
            for start in range(0, len(self.test.x), 8):
                output = network(self.batch_of(self.test, slice(start, start + 8))[0])
                prediction = self.predict(output)
                if FAMILIES[self.family].channels_last:
                    prediction = prediction.movedim(-1, 1)
                parts.append(self.decode(prediction.cfloat() if self.gives_complex else prediction.float()))
        truth = to_complex(self.raw_test.y) if self.gives_complex else self.raw_test.y
        return error_to_mean(torch.cat(parts), truth)


def error_to_mean(prediction: torch.Tensor, truth: torch.Tensor) -> float:
    """Return the root of the mean over channels of (squared error / variance of the truth)."""
    axes = (0, *range(2, truth.ndim))
    error = (prediction - truth).abs().double().square().mean(axes)
    spread = (truth - truth.mean(axes, keepdim=True)).abs().double().square().mean(axes)
    return float((error / spread).mean().sqrt())


def to_complex(amplitude_and_phase: torch.Tensor) -> torch.Tensor:
    """Return (N, 1, *S) complex from (N, 2, *S)."""
    amplitude, phase = amplitude_and_phase[:, :1], amplitude_and_phase[:, 1:]
    return torch.polar(amplitude, phase)


def relative_l2(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean over samples of ‖prediction - target‖ / ‖target‖."""
    error, size = (each.flatten(1).norm(dim=1) for each in (prediction - target, target))
    return (error / size).mean()


def complex_mse(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean of |prediction - target|²."""
    return (prediction - target).abs().square().mean()
