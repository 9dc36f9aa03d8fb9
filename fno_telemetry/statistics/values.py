"""Statistics of values: moments, order statistics, exact counts and both histograms."""

import math
from dataclasses import dataclass

import torch

from fno_telemetry.quantities import select
from fno_telemetry.records import SketchNote, Value
from fno_telemetry.statistics import histograms
from fno_telemetry.statistics.activation import Activation
from fno_telemetry.statistics.bins import Bins, bins
from fno_telemetry.statistics.contract import Known, Of, Summary, keys_of
from fno_telemetry.statistics.sketch import Sketch, sketch, split_blocks

PERCENTS = (1, 5, 50, 95, 99)
ABSOLUTE_PERCENTS = (50, 95, 99)
_MOMENTS = ("mean", "std", "rms", "min", "max", "abs_mean", "abs_std")


@dataclass(frozen=True)
class ValueState:
    """Moments about the mean, sums, extremes, exact counts and the sketch."""

    count: int
    finite: torch.Tensor
    nan: torch.Tensor
    zero: torch.Tensor
    negative: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    mean: torch.Tensor
    deviation: torch.Tensor  # root of the sum of (x - mean)^2; the sum may overflow float64
    absolute_sum: torch.Tensor
    sketch: Sketch
    complex: bool

    def merge(self, other: "ValueState") -> "ValueState":
        """Return the state of both data sets together [1].

        [1] Chan, Golub, LeVeque: Updating formulae and a pairwise algorithm for computing sample variances.
        """
        finite = self.finite + other.finite
        share = other.finite / finite.clamp(min=1).to(self.mean.dtype)
        distance = other.mean - self.mean
        between = distance.abs() * (self.finite * share).sqrt()
        return ValueState(
            count=self.count + other.count,
            finite=finite,
            nan=self.nan + other.nan,
            zero=self.zero + other.zero,
            negative=self.negative + other.negative,
            low=torch.minimum(self.low, other.low),
            high=torch.maximum(self.high, other.high),
            mean=self.mean + distance * share,
            deviation=torch.hypot(torch.hypot(self.deviation, other.deviation), between),
            absolute_sum=self.absolute_sum + other.absolute_sum,
            sketch=self.sketch.merge(other.sketch),
            complex=self.complex or other.complex,
        )


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
        sums = activation.value_sums
        low, high = activation.extremes
        sketched = sketch(
            activation.flat, activation.flat_finite, activation.dtype, (low, high), activation.on_host
        )
        unit, precision = activation.unit, activation.accumulator
        return ValueState(
            count=activation.count,
            finite=activation.finite_count,
            nan=activation.nan_count,
            zero=_zeros(activation, sketched),
            negative=sketched.negative_count(activation.on_host),
            low=low.to(precision),
            high=high.to(precision),
            mean=sums.mean * unit,
            deviation=sums.energy.sqrt() * unit,
            absolute_sum=sums.absolute * unit,
            sketch=sketched,
            complex=activation.complex,
        )

    def summarize(self, state: ValueState, known: Known) -> Summary:
        """Return the numbers of `keys`, both histograms and the note about the sketch."""
        finite, nan, zero = int(state.finite), int(state.nan), int(state.zero)
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
        signed = bins(state.sketch, zero)
        magnitudes = signed.magnitudes()
        stats |= _moments(state, finite)
        stats |= {f"p{percent:02d}": signed.order_statistic(percent) for percent in PERCENTS}
        stats |= {f"abs_p{p:02d}": magnitudes.order_statistic(p) for p in ABSOLUTE_PERCENTS}
        stats["tail_ratio"] = _ratio(stats["abs_p99"], stats["abs_p50"])
        stats["zero_fraction"] = zero / finite
        stats["negative_fraction"] = None if state.complex else int(state.negative) / finite
        for key in keys_of(self):
            if stats[key] is None:
                reasons[key] = _explain_undefined(key, state)
        return Summary(
            {key: stats[key] for key in keys_of(self)},
            reasons,
            histogram=histograms.make_linear(signed),
            log_histogram=histograms.make_logarithmic(magnitudes),
            sketch=_note(signed),
        )


def _zeros(activation: Activation, sketched: Sketch) -> torch.Tensor:
    """Return the number of exact zeros; on the host they are counted only if the bin of zero is non-empty."""
    if activation.on_host and not sketched.may_hold_zeros():
        return torch.zeros((), dtype=torch.int64, device=activation.device)
    flat, number = activation.flat, activation.finite_count
    # Comparing integers avoids a branch; adding zero gives -0.0 the pattern of 0.0. Non-finite elements that
    # are still in `flat` are 0.
    whole = torch.int32 if flat.dtype == torch.float32 else torch.int64
    blocks = split_blocks(flat, activation.block_elements)
    return number - torch.stack([torch.count_nonzero((block + 0.0).view(whole)) for block in blocks]).sum()


def _moments(state: ValueState, finite: int) -> dict[str, Value]:
    low, high = float(state.low), float(state.high)
    mean, absolute_mean = float(state.mean), float(state.absolute_sum) / finite
    std = float(state.deviation) / math.sqrt(finite)
    if low == high:
        # All values are equal, so any energy around the mean is rounding error.
        mean, absolute_mean, std = low, abs(low), 0.0
    rms = math.hypot(std, mean)
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


def _note(signed: Bins) -> SketchNote:
    return SketchNote(signed.relative_error, signed.underflow, signed.below + signed.above)


def _explain_undefined(key: str, state: ValueState) -> str:
    if key == "negative_fraction":
        return "complex values have no sign"
    if key == "tail_ratio":
        return "abs_p50 is zero or unknown"
    if key in _MOMENTS:
        return "the result overflows float64"
    return "that percentile is outside the range of float32"
