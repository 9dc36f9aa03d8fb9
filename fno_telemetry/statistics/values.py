"""Statistics of values: moments, order statistics, exact counts and both histograms."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from fno_telemetry.quantities import select
from fno_telemetry.records import SketchNote, Value
from fno_telemetry.statistics import histograms, kernels, reading
from fno_telemetry.statistics.activation import Activation
from fno_telemetry.statistics.bins import Bins, bins
from fno_telemetry.statistics.contract import Known, Of, Summary, keys_of
from fno_telemetry.statistics.sketch import Sketch, sketch
from fno_telemetry.statistics.sums import split_blocks

PERCENTS = (1, 5, 50, 95, 99)
ABSOLUTE_PERCENTS = (50, 95, 99)
_MOMENTS = ("mean", "std", "rms", "min", "max", "abs_mean", "abs_std")


@dataclass(frozen=True)
class ValueState:
    """Exact counts, extremes, moments about the mean, and the sketch."""

    count: int
    numbers: torch.Tensor  # int64: finite elements, NaN, zeros, negative elements
    extremes: torch.Tensor  # low, high
    moments: torch.Tensor  # mean, root of the sum of (x - mean)^2, sum of |x|, root of the sum of |x|^2
    sketch: Sketch
    complex: bool

    @property
    def finite(self) -> torch.Tensor:
        """The number of finite elements."""
        return self.numbers[0]

    @property
    def absolute_sum(self) -> torch.Tensor:
        """The sum of |x| over finite elements."""
        return self.moments[2]

    def merge(self, other: "ValueState") -> "ValueState":
        """Return the state of both data sets together [1].

        [1] Chan, Golub, LeVeque: Updating formulae and a pairwise algorithm for computing sample variances.
        """
        if reading.is_free(self.numbers):
            extremes, moments = _merge_on_host(self, other)
        else:
            extremes, moments = _merge_on_device(self, other)
        return ValueState(
            count=self.count + other.count,
            numbers=self.numbers + other.numbers,
            extremes=extremes,
            moments=moments,
            sketch=self.sketch.merge(other.sketch),
            complex=self.complex or other.complex,
        )


def _merge_on_host(one: ValueState, other: ValueState) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = one.numbers.tolist()[0], other.numbers.tolist()[0]
    (low, high), (other_low, other_high) = one.extremes.tolist(), other.extremes.tolist()
    mean, deviation, absolute, norm = one.moments.tolist()
    other_mean, other_deviation, other_absolute, other_norm = other.moments.tolist()
    share = second / max(first + second, 1)
    distance = other_mean - mean
    between = abs(distance) * math.sqrt(first * share)
    return _numbers(min(low, other_low), max(high, other_high)), _numbers(
        mean + distance * share,
        math.hypot(deviation, other_deviation, between),
        absolute + other_absolute,
        math.hypot(norm, other_norm),
    )


def _merge_on_device(one: ValueState, other: ValueState) -> tuple[torch.Tensor, torch.Tensor]:
    mean, deviation, absolute, norm = one.moments
    other_mean, other_deviation, other_absolute, other_norm = other.moments
    share = other.finite / (one.finite + other.finite).clamp(min=1).to(mean.dtype)
    distance = other_mean - mean
    between = distance.abs() * (one.finite * share).sqrt()
    deviation = torch.hypot(torch.hypot(deviation, other_deviation), between)
    low = torch.minimum(one.extremes[0], other.extremes[0])
    high = torch.maximum(one.extremes[1], other.extremes[1])
    mean, absolute, norm = mean + distance * share, absolute + other_absolute, torch.hypot(norm, other_norm)
    return torch.stack((low, high)), torch.stack((mean, deviation, absolute, norm))


def _numbers(*numbers: float) -> torch.Tensor:
    return torch.from_numpy(np.array(numbers, np.float64))


class Values:
    """Statistics of the values of a tensor, of |z| if it is complex."""

    name = "values"
    of: Of = "tensor"
    needs = ()
    quantities = select(
        "count",
        "nan_count",
        "inf_count",
        "finite_fraction",
        *_MOMENTS[:5],
        *(f"p{percent:02d}" for percent in PERCENTS),
        *_MOMENTS[5:],
        *(f"abs_p{percent:02d}" for percent in ABSOLUTE_PERCENTS),
        "tail_ratio",
        "zero_fraction",
        "negative_fraction",
    )

    def measure(self, activation: Activation) -> ValueState:
        """Measure all finite elements; an empty tensor has a state with counts of 0."""
        return _measure_on_host(activation) if activation.on_host else _measure_on_device(activation)

    def summarize(self, state: ValueState, known: Known) -> Summary:
        """Return the numbers of `keys`, both histograms and the note about the sketch."""
        finite, nan, zero, negative = state.numbers.tolist()
        stats: dict[str, Value] = {
            "count": state.count,
            "nan_count": nan,
            "inf_count": state.count - finite - nan,
            "finite_fraction": finite / state.count if state.count else None,
        }
        reasons = {} if state.count else {"finite_fraction": "the tensor has no elements"}
        if finite == 0:
            undefined = [key for key in keys_of(self) if key not in stats]
            reason = "the tensor has no elements" if state.count == 0 else "no element is finite"
            reasons |= dict.fromkeys(undefined, reason)
            return Summary(stats | dict.fromkeys(undefined), reasons)
        share = state.sketch.total / finite
        signed = bins(state.sketch, round(share * zero))
        magnitudes = signed.magnitudes()
        stats |= _moments(state, finite)
        for start, one, percents in (("p", signed, PERCENTS), ("abs_p", magnitudes, ABSOLUTE_PERCENTS)):
            quantiles = one.quantiles(*(10 * percent for percent in percents))
            stats |= zip((f"{start}{percent:02d}" for percent in percents), quantiles, strict=True)
        stats["tail_ratio"] = _ratio(stats["abs_p99"], stats["abs_p50"])
        stats["zero_fraction"] = zero / finite
        stats["negative_fraction"] = None if state.complex else negative / finite
        for key in keys_of(self):
            if stats[key] is None:
                reasons[key] = _explain_undefined(key, state)
        return Summary(
            {key: stats[key] for key in keys_of(self)},
            reasons,
            histogram=histograms.make_linear(signed),
            log_histogram=histograms.make_logarithmic(magnitudes),
            sketch=_note(magnitudes, state.sketch.total, finite),
        )


def _measure_on_host(activation: Activation) -> ValueState:
    flat = activation.flat
    low, high = ends = activation.ends
    sketched = sketch(activation.sketched[0], None, activation.dtype, ends, on_host=True)
    negative, zero = _count_signs(activation, sketched)
    nan = 0 if activation.finite is None else int(activation.nan_count)
    mean, energy, absolute = activation.host_sums
    unit = 1.0 if activation.scale is None else float(activation.scale)
    return ValueState(
        count=activation.count,
        numbers=torch.from_numpy(np.array((flat.numel(), nan, zero, negative))),
        extremes=_numbers(low, high),
        moments=_numbers(mean * unit, math.sqrt(energy) * unit, absolute * unit, activation.host_norm),
        sketch=sketched,
        complex=activation.complex,
    )


def _count_signs(activation: Activation, sketched: Sketch) -> tuple[int, int]:
    """Return the number of values below zero, and of zeros."""
    if activation.is_sketched_whole:
        negative, possible = _split_at_zero(sketched)
        if not possible:
            return negative, 0
    return kernels.active().count_signs(activation.flat_array)


def _split_at_zero(sketched: Sketch) -> tuple[int, int]:
    """Return the number of values below zero, and that of values in the bin of zero."""
    filled, counts = sketched.on_host()
    _, start, _, _, below, _ = sketched.frame.tolist()
    at = int(filled.searchsorted(-start))
    home = int(counts[at]) if at < filled.size and filled[at] == -start else 0
    return below + int(np.add.reduce(counts[:at])), home


def _measure_on_device(activation: Activation) -> ValueState:
    """Measure without reading a value on the host."""
    sums, unit, precision = activation.value_sums, activation.unit, activation.accumulator
    low, high = activation.extremes
    sketched = sketch(*activation.sketched, activation.dtype, on_host=False)
    whole = activation.is_sketched_whole
    return ValueState(
        count=activation.count,
        numbers=torch.stack(
            (
                activation.finite_count,
                activation.nan_count,
                _count_zeros(activation),
                sketched.negative_count() if whole else _count_negative(activation),
            )
        ),
        extremes=torch.stack((low, high)).to(precision),
        moments=torch.stack(
            (sums.mean * unit, sums.energy.sqrt() * unit, sums.absolute * unit, activation.norm)
        ),
        sketch=sketched,
        complex=activation.complex,
    )


def _count_negative(activation: Activation) -> torch.Tensor:
    """Return the number of values below zero; non-finite elements that are still in `flat` are 0."""
    blocks = split_blocks(activation.flat, activation.block_elements)
    return torch.stack([torch.count_nonzero(block < 0) for block in blocks]).sum()


def _count_zeros(activation: Activation) -> torch.Tensor:
    """Return the number of exact zeros; non-finite elements that are still in `flat` are 0."""
    flat = activation.flat
    # Comparing integers avoids a branch; adding zero gives -0.0 the pattern of 0.0.
    whole = torch.int32 if flat.dtype == torch.float32 else torch.int64
    blocks = split_blocks(flat, activation.block_elements)
    nonzero = torch.stack([torch.count_nonzero((block + 0.0).view(whole)) for block in blocks]).sum()
    return activation.finite_count - nonzero


def _moments(state: ValueState, finite: int) -> dict[str, Value]:
    low, high = state.extremes.tolist()
    mean, deviation, absolute, norm = state.moments.tolist()
    absolute_mean, std, rms = absolute / finite, deviation / math.sqrt(finite), norm / math.sqrt(finite)
    if low == high:
        # All values are equal, so any energy around the mean is rounding error.
        mean, absolute_mean, std, rms = low, abs(low), 0.0, abs(low)
    if low >= 0 or high <= 0:
        # All values have one sign: |x| has the spread of x, without the cancellation of the general formula.
        absolute_std = std
    else:
        absolute_std = math.sqrt(max(rms - absolute_mean, 0.0)) * math.sqrt(rms + absolute_mean)
    moments = {
        "mean": mean,
        "std": std,
        "rms": rms,
        "min": low,
        "max": high,
        "abs_mean": absolute_mean,
        "abs_std": absolute_std,
    }
    return {key: value if math.isfinite(value) else None for key, value in moments.items()}


def _ratio(above: Value, below: Value) -> float | None:
    return above / below if above is not None and below else None


def _note(magnitudes: Bins, sketched: int, finite: int) -> SketchNote:
    # Twice the standard error of the rank of the median of independent elements, the largest of any rank.
    rank_error = 0.0 if sketched == finite else 1 / math.sqrt(sketched)
    return SketchNote(
        relative_error=magnitudes.relative_error,
        underflow=magnitudes.underflow,
        overflow=magnitudes.above,
        share=sketched / finite,
        rank_error=rank_error,
    )


def _explain_undefined(key: str, state: ValueState) -> str:
    if key == "negative_fraction":
        return "complex values have no sign"
    if key == "tail_ratio":
        return "abs_p50 is zero or unknown"
    if key in _MOMENTS:
        return "the result overflows float64"
    return "that percentile is outside the range of float32"
