"""How moments about a mean combine over processes, and a sketch: by a maximum first, then by sums.

The largest mean of all processes is the common centre about which each adds up. No energy is then a
difference of two large numbers, as it would be about zero.
"""

import math
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from fno_telemetry.statistics.compared_channels import ChannelSums
from fno_telemetry.statistics.samples import SampleState
from fno_telemetry.statistics.sketch import BINS, gather_sketch
from fno_telemetry.statistics.values import ValueState

Numbers = npt.NDArray[np.float64]

About = dict[str, Any]
"""What must be known of a state to combine it, as JSON can hold it; the same in all processes."""


class Moments(Protocol):
    """How the states of one class combine over processes."""

    def describe(self, state: Any) -> About | str:
        """Return what must be known of a state, or why it cannot be combined with others."""
        ...

    def join(self, one: About, other: About) -> About | None:
        """Return what holds for both; None if they cannot be combined."""
        ...

    def sizes(self, about: About) -> tuple[int, int]:
        """Return how many numbers `largest` and `sums` give."""
        ...

    def largest(self, state: Any, about: About) -> Numbers:
        """Return the numbers of which the largest of all processes counts."""
        ...

    def sums(self, state: Any, about: About, largest: Numbers) -> Numbers:
        """Return the numbers that add up, given the largest ones of all processes."""
        ...

    def combine(self, about: About, largest: Numbers, sums: Numbers) -> Any:
        """Return the state of all processes."""
        ...


class _ValueMoments:
    """Counts, extremes, moments and the sketch of a `ValueState`."""

    def describe(self, state: ValueState) -> About | str:
        return {}

    def join(self, one: About, other: About) -> About | None:
        return one

    def sizes(self, about: About) -> tuple[int, int]:
        return 8, 11 + BINS

    def largest(self, state: ValueState, about: About) -> Numbers:
        mean, _, _, norm = state.moments.tolist()
        low, high = state.extremes.tolist()
        sketch = state.sketch
        ends = -int(sketch.low), int(sketch.high)
        centre = mean if int(state.finite) else -math.inf
        return np.array((-low, high, *_finite(centre, norm), state.complex, -sketch.spare, *ends))

    def sums(self, state: ValueState, about: About, largest: Numbers) -> Numbers:
        centre, unit = _known(largest[2], 0.0), _unit(largest[3])
        mean, deviation, absolute, norm = state.moments.tolist()
        finite = int(state.finite)
        away = (mean - centre) / unit if finite else 0.0
        around = (deviation / unit) ** 2 + finite * away * away
        moments = finite * away, around, absolute, (norm / unit) ** 2
        sketch = state.sketch
        outside = int(sketch.below), int(sketch.above)
        counts = sketch.spread_out(-int(largest[6]), int(largest[7]))
        return np.concatenate(((state.count, *state.numbers.tolist(), *moments, *outside), counts))

    def combine(self, about: About, largest: Numbers, sums: Numbers) -> ValueState:
        centre, unit = _known(largest[2], 0.0), _unit(largest[3])
        count, numbers = int(sums[0]), sums[1:5].astype(np.int64)
        away, around, absolute, energy = sums[5:9].tolist()
        share = away / max(int(numbers[0]), 1)
        moments = (
            centre + unit * share,
            unit * math.sqrt(max(around - away * share, 0.0)) if math.isfinite(around) else math.inf,
            absolute,
            unit * math.sqrt(energy),
        )
        below, above = sums[9:11].astype(np.int64).tolist()
        ends = -int(largest[6]), int(largest[7])
        counts = sums[11:].astype(np.int64)
        return ValueState(
            count=count,
            numbers=torch.from_numpy(numbers),
            extremes=torch.tensor((-largest[0], largest[1]), dtype=torch.float64),
            moments=torch.tensor(moments, dtype=torch.float64),
            sketch=gather_sketch(*ends, counts, below, above, -int(largest[5])),
            complex=largest[4] > 0,
        )


class _SampleMoments:
    """The mean field of a `SampleState`, and the energy around it."""

    def describe(self, state: SampleState) -> About | str:
        if not state.mean.numel():
            return "the mean field of a batch was not kept"
        return {
            "shape": list(state.shape),
            "positions": state.mean.numel(),
            "each": state.number.ndim > 0,  # whether each position has a number of samples of its own
        }

    def join(self, one: About, other: About) -> About | None:
        return {**one, "each": one["each"] or other["each"]} if one["shape"] == other["shape"] else None

    def sizes(self, about: About) -> tuple[int, int]:
        positions = int(about["positions"])
        return positions, positions + (positions if about["each"] else 1) + 3

    def largest(self, state: SampleState, about: About) -> Numbers:
        mean = state.mean.double().numpy()
        return np.where(np.isfinite(mean), mean, -np.inf)

    def sums(self, state: SampleState, about: About, largest: Numbers) -> Numbers:
        number = state.number.double().numpy().reshape(-1)
        if about["each"] and number.size == 1:
            number = np.full(len(largest), number[0])
        away = state.mean.double().numpy() - np.where(np.isfinite(largest), largest, 0.0)
        moved = number * away
        around = float(state.deviation_energy) + float(moved.dot(away))
        return np.concatenate((moved, number, (around, float(state.energy), state.samples)))

    def combine(self, about: About, largest: Numbers, sums: Numbers) -> SampleState:
        positions = len(largest)
        moved, number = sums[:positions], sums[positions:-3]
        around, energy, samples = sums[-3:].tolist()
        share = moved / np.maximum(number, 1)
        numbers = torch.from_numpy(number.astype(np.int64))
        return SampleState(
            number=numbers if about["each"] else numbers[0],
            mean=torch.from_numpy(np.where(np.isfinite(largest), largest, 0.0) + share),
            deviation_energy=_scalar(max(around - float(moved.dot(share)), 0.0)),
            energy=_scalar(energy),
            samples=int(samples),
            shape=tuple(about["shape"]),
        )


class _ChannelMoments:
    """The means of channels in `ChannelSums`, the energy around them, and norms."""

    def describe(self, state: ChannelSums) -> About | str:
        return {"channels": state.mean.numel(), "complex": state.mean.is_complex()}

    def join(self, one: About, other: About) -> About | None:
        return one if one == other else None

    def sizes(self, about: About) -> tuple[int, int]:
        channels = int(about["channels"])
        of_means = channels * (2 if about["complex"] else 1)
        return of_means + 2 * channels, 2 + of_means + 2 * channels

    def largest(self, state: ChannelSums, about: About) -> Numbers:
        means, norms = _real(state.mean), state.norms.double().numpy().reshape(-1)
        both = np.concatenate((means, norms))
        return np.where(np.isfinite(both), both, -np.inf)

    def sums(self, state: ChannelSums, about: About, largest: Numbers) -> Numbers:
        channels = int(about["channels"])
        centre, units = _split(largest, channels)
        away = _real(state.mean) - centre
        elements = float(state.elements)
        around = float(state.around) + elements * float(away.dot(away))
        norms = state.norms.double().numpy().reshape(-1) / units
        return np.concatenate(((elements, around), elements * away, norms * norms))

    def combine(self, about: About, largest: Numbers, sums: Numbers) -> ChannelSums:
        channels = int(about["channels"])
        centre, units = _split(largest, channels)
        elements, around = sums[:2].tolist()
        moved = sums[2 : 2 + len(centre)]
        share = moved / max(elements, 1.0)
        mean = torch.from_numpy(centre + share)
        norms = units * np.sqrt(sums[2 + len(centre) :])
        return ChannelSums(
            elements=torch.tensor(int(elements)),
            mean=torch.view_as_complex(mean.reshape(-1, 2)) if about["complex"] else mean,
            around=_scalar(max(around - float(moved.dot(share)), 0.0)),
            norms=torch.from_numpy(norms.reshape(2, channels)),
        )


MOMENTS: dict[type[Any], Moments] = {
    ValueState: _ValueMoments(),
    SampleState: _SampleMoments(),
    ChannelSums: _ChannelMoments(),
}
"""How states combine of which a part is about a mean, by class."""


def _finite(*numbers: float) -> tuple[float, ...]:
    return tuple(number if math.isfinite(number) else -math.inf for number in numbers)


def _known(number: float, otherwise: float) -> float:
    return float(number) if math.isfinite(number) else otherwise


def _unit(number: float) -> float:
    """Return a positive unit in which squares neither overflow nor vanish."""
    return float(number) if 0 < number < math.inf else 1.0


def _split(largest: Numbers, channels: int) -> tuple[Numbers, Numbers]:
    """Return the common centre of means, and the units of norms."""
    known = np.isfinite(largest)
    of_means = len(largest) - 2 * channels
    units = np.where(known & (largest > 0), largest, 1.0)[of_means:]
    return np.where(known, largest, 0.0)[:of_means], units


def _real(means: torch.Tensor) -> Numbers:
    parts = torch.view_as_real(means.resolve_conj()) if means.is_complex() else means
    found: Numbers = parts.double().numpy().reshape(-1)
    return found


def _scalar(number: float) -> torch.Tensor:
    return torch.tensor(number, dtype=torch.float64)
