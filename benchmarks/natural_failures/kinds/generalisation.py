"""Accidents seen on other samples only: overfitting, another resolution, other data."""

import torch

from benchmarks.natural_failures.kinds.contract import OUTCOME, Kind, Places
from benchmarks.natural_failures.setup import Samples, Setup


def overfitting(setup: Setup) -> Places:
    """Four samples, and time enough to learn them by heart."""
    kept = 4 if setup.seed % 2 else 3
    setup.train = Samples(setup.train.x[:kept], setup.train.y[:kept])
    setup.steps = 2 * setup.steps
    setup.weight_decay = 0.0
    return OUTCOME


def trained_at_half_resolution(setup: Setup) -> Places:
    """Every second point is left out in training; the test is on the full grid."""
    thin = (slice(None), slice(None), *[slice(None, None, 2)] * setup.task.dimension)
    setup.train = Samples(setup.train.x[thin], setup.train.y[thin])
    return ("input", *OUTCOME)


def tested_on_other_fields(setup: Setup) -> Places:
    """The test has other fields than the training: rougher by far."""
    random = torch.Generator().manual_seed(setup.seed)
    noise = torch.randn(setup.test.x.shape, generator=random)
    setup.test = Samples(0.6 * setup.test.x + 0.8 * noise, setup.test.y)
    return ("input", *OUTCOME)


KINDS = (
    Kind("overfitting", "overfitting", overfitting, needs_test=True),
    Kind(
        "trained at half resolution",
        "resolution",
        trained_at_half_resolution,
        ("fno", "FNO", "TFNO", "written"),
        needs_test=True,
    ),
    Kind("test inputs are noisy", "test normalised otherwise", tested_on_other_fields, needs_test=True),
)
