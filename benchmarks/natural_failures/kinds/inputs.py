"""Accidents with inputs: scales, blank and broken samples, other statistics in the test."""

import torch

from benchmarks.natural_failures.kinds.contract import Kind, Places
from benchmarks.natural_failures.setup import Samples, Setup

INPUT: Places = ("input",)


def _with_inputs(setup: Setup, train: torch.Tensor, test: torch.Tensor) -> None:
    setup.train, setup.test = Samples(train, setup.train.y), Samples(test, setup.test.y)


def input_of_1e4(setup: Setup) -> Places:
    """Inputs are left in a unit in which they are about 1e4."""
    factor = 1e4 / float(setup.raw_train.x.square().mean().sqrt())
    _with_inputs(setup, setup.raw_train.x * factor, setup.raw_test.x * factor)
    return INPUT


def input_in_kelvin(setup: Setup) -> Places:
    """Inputs vary by about 1 around 300: the mean is not subtracted."""
    _with_inputs(setup, setup.train.x + 300, setup.test.x + 300)
    return INPUT


def test_not_normalised(setup: Setup) -> Places:
    """The training normalises its inputs, the test does not."""
    raw = setup.raw_test.x
    if setup.task.name == "burgers":  # its raw inputs happen to be normalised
        raw = 3.6 * raw + 10  # km/h, against a moving frame
    _with_inputs(setup, setup.train.x, raw)
    return INPUT


def test_by_own_statistics(setup: Setup) -> Places:
    """Each test sample is normalised by its minimum and maximum, the training by mean and deviation."""
    x = setup.raw_test.x
    low, high = (getattr(x.flatten(2), name)(2)[..., None] for name in ("amin", "amax"))
    scaled = (x.flatten(2) - low) / (high - low)
    _with_inputs(setup, setup.train.x, scaled.reshape(x.shape))
    return INPUT


def coordinates_in_metres(setup: Setup) -> Places:
    """Coordinates are appended as further channels, from 0 to 1e5 m."""
    length = 1e5 if setup.seed % 2 else 1e4

    def add(x: torch.Tensor) -> torch.Tensor:
        axes = [torch.linspace(0, length, size) for size in x.shape[2:]]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        return torch.cat((x, grid.expand(len(x), *grid.shape)), 1)

    _with_inputs(setup, add(setup.train.x), add(setup.test.x))
    return INPUT


def one_channel_in_pascal(setup: Setup) -> Places:
    """One channel of several is not normalised."""
    channel = 1 if setup.task.name == "weather" else 0
    train, test = setup.train.x.clone(), setup.test.x.clone()
    train[:, channel], test[:, channel] = setup.raw_train.x[:, channel], setup.raw_test.x[:, channel]
    _with_inputs(setup, train, test)
    return INPUT


def deviation_of_zero(setup: Setup) -> Places:
    """A channel that is constant in the training data is divided by its deviation plus 1e-8.

    In the training it is rounding noise that is blown up.
    """
    noise = torch.Generator().manual_seed(setup.seed)

    def add(x: torch.Tensor, level: float) -> torch.Tensor:
        flat = torch.full_like(x[:, :1], level)
        wobble = 1e-4 * torch.randn(flat.shape, generator=noise)
        return torch.cat((x, wobble / 1e-8 if level == 0 else flat / 1e-4), 1)

    _with_inputs(setup, add(setup.train.x, 0), add(setup.test.x, 0))
    return INPUT


def half_blank(setup: Setup) -> Places:
    """Half of the samples are all zero: files that were not there."""
    train = setup.train.x.clone()
    train[::2] = 0
    _with_inputs(setup, train, setup.test.x)
    return INPUT


def sample_with_nan(setup: Setup) -> Places:
    """One training sample of thirty has a NaN, of a masked pixel."""
    train = setup.train.x.clone()
    train[3::30].flatten(1)[:, 0] = torch.nan
    train.view(len(train), -1)[3::30, 7] = torch.nan
    _with_inputs(setup, train, setup.test.x)
    return INPUT


def channels_in_other_order(setup: Setup) -> Places:
    """The test has its channels in another order than the training."""
    _with_inputs(setup, setup.train.x, setup.test.x.roll(1, dims=1))
    return INPUT


KINDS = (
    Kind("input of 1e4", "input scale", input_of_1e4),
    Kind("input in Kelvin", "input scale", input_in_kelvin),
    Kind(
        "normalised in training, not in test",
        "test normalised otherwise",
        test_not_normalised,
        needs_test=True,
    ),
    Kind("test normalised by sample", "test normalised otherwise", test_by_own_statistics, needs_test=True),
    Kind("coordinates in metres", "input channel scale", coordinates_in_metres),
    Kind(
        "one channel not normalised",
        "input channel scale",
        one_channel_in_pascal,
        tasks=("weather", "holography"),
    ),
    Kind("standard deviation of zero", "input channel scale", deviation_of_zero),
    Kind("half of the samples blank", "blank samples", half_blank),
    Kind("a sample with NaN", "non-finite input", sample_with_nan),
    Kind(
        "test channels in another order",
        "test normalised otherwise",
        channels_in_other_order,
        tasks=("weather",),
        needs_test=True,
    ),
)
