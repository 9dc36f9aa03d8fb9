"""Accidents with the optimizer's steps: rates, clipping, decay, schedules, spikes."""

import torch

from benchmarks.natural_failures.kinds.contract import ANYWHERE, OUTCOME, Kind, Places
from benchmarks.natural_failures.setup import Setup

SPIKE_STEP = 61
WATCHED = range(SPIKE_STEP - 8, SPIKE_STEP + 24)
"""Steps around a spike, each of which is recorded, as in a run that is watched at every step."""


def rate_too_high(setup: Setup) -> Places:
    """3e-1 instead of 3e-3: a zero forgotten."""
    setup.rate = 0.3
    return OUTCOME


def rate_too_low(setup: Setup) -> Places:
    """1e-7, as copied from the fine-tuning of another network."""
    setup.rate = 1e-7
    return OUTCOME


def sgd_diverges(setup: Setup) -> Places:
    """Adam was replaced by SGD with momentum, and its rate was set by hearsay."""
    setup.rate = 2.0 if setup.family in ("fno", "hybrid") else 5.0
    setup.optimizer = lambda network: torch.optim.SGD(network.parameters(), setup.rate, momentum=0.9)
    return ANYWHERE


def gradients_clipped_to_nothing(setup: Setup) -> Places:
    """SGD whose gradients are clipped at a norm of 1e-4 instead of 1."""
    setup.rate, setup.clip = 0.02, 1e-4
    setup.optimizer = lambda network: torch.optim.SGD(network.parameters(), setup.rate, momentum=0.9)
    return OUTCOME


def decay_too_strong(setup: Setup) -> Places:
    """A weight decay of 10 instead of 1e-2."""
    setup.weight_decay = 10.0 if setup.seed % 2 else 30.0
    return ANYWHERE


def penalty_too_strong(setup: Setup) -> Places:
    """Adam's own L2 penalty at a value that was meant for AdamW."""
    setup.optimizer = lambda network: torch.optim.Adam(network.parameters(), setup.rate, weight_decay=0.1)
    return ANYWHERE


def schedule_ends_early(setup: Setup) -> Places:
    """The scheduler is stepped for each batch, with the number of epochs as its length."""
    setup.rate_factor = lambda step, steps: max(0.0, 1 - step / 4)
    return OUTCOME


def gradients_never_cleared(setup: Setup) -> Places:
    """`zero_grad` was forgotten, with SGD as it accumulates without bound."""
    setup.clears_gradients = False
    setup.rate = 0.05
    setup.optimizer = lambda network: torch.optim.SGD(network.parameters(), setup.rate, momentum=0.9)
    return ANYWHERE


def rate_spikes(setup: Setup) -> Places:
    """A scheduler that was resumed wrongly gives one step a rate three hundred times too high."""
    setup.rate_factor = lambda step, steps: 300.0 if step == SPIKE_STEP else 1.0
    setup.watched = WATCHED
    return ANYWHERE


def rate_restarts(setup: Setup) -> Places:
    """A warm restart begins at a rate fifty times too high, and stays there."""
    setup.rate_factor = lambda step, steps: 50.0 if step >= SPIKE_STEP else 1.0
    setup.watched = WATCHED
    return ANYWHERE


def batch_with_outlier(setup: Setup) -> Places:
    """One batch has a broken target of 1e4 times its size; nothing is clipped, and the rate is high."""

    def change(step: int, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (x, y * 1e4) if step == SPIKE_STEP else (x, y)

    setup.change_batch, setup.watched = change, WATCHED
    setup.rate = 0.01
    setup.optimizer = lambda network: torch.optim.SGD(network.parameters(), setup.rate, momentum=0.9)
    return ANYWHERE


def rate_creeps_up(setup: Setup) -> Places:
    """A warm-up that never ends: the rate doubles every eight steps from the middle on."""
    setup.rate_factor = lambda step, steps: 2.0 ** (max(0, step - SPIKE_STEP) / 6)
    setup.watched = range(SPIKE_STEP - 8, setup.steps, 2)
    return ANYWHERE


KINDS = (
    Kind("rate too high", "updates too large", rate_too_high),
    Kind("rate too low", "nothing moves", rate_too_low),
    Kind("SGD diverges", "updates too large", sgd_diverges),
    Kind("gradients clipped to nothing", "nothing moves", gradients_clipped_to_nothing),
    Kind("weight decay too strong", "decay too strong", decay_too_strong),
    Kind("L2 penalty too strong", "decay too strong", penalty_too_strong),
    Kind("schedule ends early", "loss stopped", schedule_ends_early),
    Kind("gradients never cleared", "updates too large", gradients_never_cleared),
    Kind("rate spikes once", "spike", rate_spikes, spike=SPIKE_STEP),
    Kind("rate restarts too high", "spike", rate_restarts, spike=SPIKE_STEP),
    Kind("batch with an outlier", "spike", batch_with_outlier, spike=SPIKE_STEP),
    Kind("rate creeps up", "spike", rate_creeps_up, spike=SPIKE_STEP),
)
