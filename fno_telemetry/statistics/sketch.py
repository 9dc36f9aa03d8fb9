"""A mergeable sketch of a distribution: counts over the leading bits of the float32 pattern.

Sign, exponent and leading mantissa bits of a float32, as one integer, form a signed logarithmic bin. The
integers are ordered like the values, so consecutive integers form an interval. A window of 2^16 bins covers
all float32 numbers with 128 bins per octave; if the values span a smaller range, the window keeps more bits,
down to single values. How many bits are dropped depends only on the smallest and largest value, and bins
merge only in pairs, so any split of the data gives exactly the sketch of the whole.
"""

import math
import struct
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from fno_telemetry.statistics import kernels, reading
from fno_telemetry.statistics.kernels import Floats, Integers, Values
from fno_telemetry.statistics.sums import split_blocks

BINS = 1 << 16
_COARSEST = 16
MAGNITUDE_BITS = 0x7FFFFFFF
_HIGHEST, _LOWEST = 0x7F800000, -0x7F800001  # ordered patterns of +inf and -inf
_SMALLEST_SUBNORMAL = 2.0**-149
_SUBNORMAL = 2.0**-1060
_SINGLE, _INTEGER = struct.Struct("=f"), struct.Struct("=i")
_SPARE_BITS = {torch.bfloat16: 16, torch.float16: 13, torch.float32: 0}
_ROUNDED = -1  # instead of spare bits: the values were rounded to float32
_DEVICE_BLOCK = 1 << 22  # elements counted at a time
_FEW_BINS = 1 << 11  # joining fewer filled bins by sorting them is faster than by a table of all

ROUNDING = 2.0**-23
"""Relative error of the conversion of a value to float32, |z| included."""

RELATIVE_ERROR = 2.0**-8 + ROUNDING
"""Bound of the relative error of every value from a sketch: half the widest bin over its lower edge, 0.39 %.

It applies to magnitudes that are normal in float32; bfloat16 values are exact.
"""


@dataclass(frozen=True)
class Sketch:
    """Counts over ordered float32 patterns: bin i holds the patterns with `(pattern >> shift) - start == i`.

    `filled` lists the bins that hold something, and `numbers` how many; on devices other than the host
    `filled` is None, and `numbers` are those of all bins. `frame` holds the numbers below it. All tensors are
    int64. `spare` is the number of trailing bits that are zero in every value (16 in bfloat16), which narrows
    the bins; it is negative if values were rounded to float32.
    """

    filled: torch.Tensor | None
    numbers: torch.Tensor
    frame: torch.Tensor
    spare: int

    @property
    def shift(self) -> torch.Tensor:
        """The number of trailing bits that are dropped."""
        return self.frame[0]

    @property
    def start(self) -> torch.Tensor:
        """The shifted pattern of the first bin."""
        return self.frame[1]

    @property
    def low(self) -> torch.Tensor:
        """The smallest ordered pattern; if the sketch is empty, it is larger than `high`."""
        return self.frame[2]

    @property
    def high(self) -> torch.Tensor:
        """The largest ordered pattern."""
        return self.frame[3]

    @property
    def below(self) -> torch.Tensor:
        """The number of float64 values below the range of float32."""
        return self.frame[4]

    @property
    def above(self) -> torch.Tensor:
        """The number of float64 values above the range of float32."""
        return self.frame[5]

    @property
    def counts(self) -> torch.Tensor:
        """The counts of all bins."""
        if self.filled is None:
            return self.numbers
        return self.numbers.new_zeros(BINS).index_add_(0, self.filled, self.numbers)

    @property
    def total(self) -> int:
        """The number of all elements that were counted; for a sketch on the host."""
        return int(self.numbers.sum()) + int(self.below) + int(self.above)

    def on_host(self) -> tuple[Integers, Integers]:
        """Return the filled bins of a sketch in host memory, and their counts."""
        counts = self.numbers.numpy()
        if self.filled is not None:
            return self.filled.numpy(), counts
        filled = np.flatnonzero(counts != 0)
        return filled, counts[filled]

    def merge(self, other: "Sketch") -> "Sketch":
        """Return the sketch of both data sets; counts are added, never rounded."""
        spare = min(self.spare, other.spare)
        if reading.is_free(self.numbers):
            return _merge_on_host(self, other, spare)
        low, high = torch.minimum(self.low, other.low), torch.maximum(self.high, other.high)
        shift, start = _window(low, high)
        counts = self._rebinned(shift, start) + other._rebinned(shift, start)
        outside = self.below + other.below, self.above + other.above
        return Sketch(None, counts, torch.stack((shift, start, low, high, *outside)), spare)

    def negative_count(self) -> torch.Tensor:
        """Return the number of values below zero; no bin holds both signs."""
        bins = _all_bins(self.numbers.device)
        return torch.where(bins < -self.start, self.counts, 0).sum() + self.below

    def spread_out(self, low: int, high: int) -> Integers:
        """Return the counts of all bins of a window for these ordered patterns; for a sketch on the host."""
        shift, start = _window_on_host(low, high)
        filled, counts = self.on_host()
        own_shift, own_start = self.frame.tolist()[:2]
        target = ((filled + own_start) >> (shift - own_shift)) - start
        return np.bincount(target, counts, BINS).astype(np.int64)

    def _rebinned(self, shift: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        bins = _all_bins(self.numbers.device)
        # Bins outside the new window are empty; clamping keeps their index valid.
        target = (((self.start + bins) >> (shift - self.shift)) - start).clamp(0, BINS - 1)
        counts = self.counts
        return torch.zeros_like(counts).index_add_(0, target, counts)


def sketch(
    values: torch.Tensor,
    finite: torch.Tensor | None,
    dtype: torch.dtype,
    ends: tuple[float, float] | None = None,
    on_host: bool | None = None,
) -> Sketch:
    """Return the sketch of real floating point `values` of any shape, without those where `finite` is False.

    `dtype` is the precision of the values before any conversion to float32; `ends` are the smallest and
    largest finite value, if they are known already. `on_host` says whether reading a value is free; by
    default it is on the CPU.
    """
    spare = _SPARE_BITS.get(dtype, _ROUNDED)
    flat = values.reshape(-1)
    if not (reading.is_free(flat) if on_host is None else on_host):
        return _sketch_on_device(_patterns(flat), None if finite is None else finite.reshape(-1), spare)
    if finite is not None:
        flat = flat[finite.reshape(-1)]
    if flat.numel() == 0:
        return _empty(spare)
    if ends is None or flat.dtype.itemsize > 4 or _subnormals_are_flushed():
        return _sketch_any(flat, spare)
    return _sketch_on_host(
        reading.read_values(flat), _ordered_pattern(ends[0]), _ordered_pattern(ends[1]), spare
    )


def gather_sketch(low: int, high: int, counts: Integers, below: int, above: int, spare: int) -> Sketch:
    """Return the sketch with these counts of all bins, as `Sketch.spread_out` gives them."""
    filled = np.flatnonzero(counts != 0)
    return _make(filled, counts[filled], (*_window_on_host(low, high), low, high, below, above), spare)


def magnitude_quantiles(sketch: Sketch, percents: tuple[int, ...]) -> torch.Tensor:
    """Return these percentiles of |x| as `torch.quantile` interpolates them, within RELATIVE_ERROR.

    Computed on the sketch's device without reading a value on the host. Magnitudes that are subnormal in
    float32 may become zero. NaN for an empty sketch and outside the range of float32.
    """
    if reading.is_free(sketch.numbers):
        return torch.from_numpy(_quantiles_on_host(sketch, percents))
    device = sketch.numbers.device
    precision = torch.float32 if device.type == "mps" else torch.float64
    half = BINS // 2
    counts = sketch._rebinned(*_window_of_everything(device))
    found, counts = torch.arange(half, device=device), counts[:half].flip(0) + counts[half:]
    cumulative = torch.cat((counts.new_zeros(1), counts)).cumsum(0)
    total = cumulative[-1] + sketch.below + sketch.above
    hundredths = (total - 1).clamp(min=0) * _constants(percents, device)
    ranks = torch.stack((hundredths // 100, (hundredths + 99) // 100)) + 1
    places = torch.searchsorted(cumulative, ranks) - 1
    keys = torch.cat((found, found.new_full((1,), half)))[places]
    last = BINS - (1 << max(sketch.spare, 0))
    patterns = torch.stack((keys << _COARSEST, (keys << _COARSEST) + last)).to(torch.int32)
    lower, upper = patterns.view(torch.float32).to(precision) / 2
    ends = torch.where(keys == 0, 0.0, torch.where(keys < half, lower + upper, torch.nan))
    quantiles = torch.lerp(ends[0], ends[1], (hundredths % 100).to(precision) / 100)
    return torch.where(total > 0, quantiles, torch.nan)


def _quantiles_on_host(sketch: Sketch, percents: tuple[int, ...]) -> Floats:
    filled, counts = sketch.on_host()
    shift, start, _, _, below, above = sketch.frame.tolist()
    keys = (filled + start) >> (_COARSEST - shift)
    # A negative pattern is the complement of its magnitude's.
    keys ^= keys >> 63
    order = keys.argsort(kind="stable")
    cumulative = counts[order].cumsum()
    total = below + above + (int(cumulative[-1]) if cumulative.size else 0)
    if total == 0:
        return np.full(len(percents), np.nan)
    hundredths = [(total - 1) * percent for percent in percents]
    ranks = [rank + 1 for each in hundredths for rank in (each // 100, -(-each // 100))]
    last = BINS - (1 << max(sketch.spare, 0))
    middles = []
    for place in cumulative.searchsorted(ranks).tolist():
        if place == cumulative.size:
            middles.append(math.nan)
            continue
        pattern = int(keys[order[place]]) << _COARSEST
        ends = _SINGLE.unpack(_INTEGER.pack(pattern)) + _SINGLE.unpack(_INTEGER.pack(pattern + last))
        middles.append(0.0 if pattern == 0 else sum(ends) / 2)
    pairs = zip(middles[::2], middles[1::2], hundredths, strict=True)
    return np.array([one + (other - one) * (each % 100 / 100) for one, other, each in pairs])


def _patterns(flat: torch.Tensor) -> torch.Tensor:
    """Return the float32 patterns (int32); values that underflow get the smallest magnitude, not zero."""
    narrow = flat.to(torch.float32)
    if flat.dtype == torch.float64:
        smallest = torch.full_like(narrow, _SMALLEST_SUBNORMAL).copysign(narrow)
        narrow = torch.where((narrow == 0) & (flat != 0), smallest, narrow)
    # Adding zero gives -0.0 the same pattern as 0.0.
    return (narrow + 0.0).view(torch.int32)


def _sketch_on_host(
    values: Values, low: int, high: int, spare: int, below: int = 0, above: int = 0
) -> Sketch:
    """Return the sketch of float32 values between the ordered patterns `low` and `high`."""
    shift, start = _window_on_host(low, high)
    filled, counts = kernels.active().count_bins(values, shift, start)
    return _make(filled, counts, (shift, start, low, high, below, above), spare)


def _sketch_any(flat: torch.Tensor, spare: int) -> Sketch:
    """Return the sketch of values of any precision in host memory, of which nothing is known yet."""
    narrow = _patterns(flat).view(torch.float32)
    inside = torch.isfinite(narrow)
    if inside.all():
        below = above = 0
    else:
        below, above = (int(torch.count_nonzero(narrow == end)) for end in (-torch.inf, torch.inf))
        narrow = narrow[inside]
    if narrow.numel() == 0:
        return _empty(spare, below, above)
    low, high = _ordered(torch.stack(torch.aminmax(narrow)).view(torch.int32)).tolist()
    return _sketch_on_host(narrow.numpy(), low, high, spare, below, above)


def _merge_on_host(first: Sketch, second: Sketch, spare: int) -> Sketch:
    one, other = first.frame.tolist(), second.frame.tolist()
    low, high = min(one[2], other[2]), max(one[3], other[3])
    shift, start = _window_on_host(low, high)
    parts = []
    for sketch, own in ((first, one), (second, other)):
        filled, counts = sketch.on_host()
        if (shift, start) != (own[0], own[1]):
            filled = ((filled + own[1]) >> (shift - own[0])) - start
        parts.append((filled, counts))
    filled, counts = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    frame = (shift, start, low, high, one[4] + other[4], one[5] + other[5])
    return _make(*_join(filled, counts), frame, spare)


def _join(filled: Integers, counts: Integers) -> tuple[Integers, Integers]:
    """Return bins in ascending order, each once, and the sums of their counts."""
    if filled.size == 0:
        return filled, counts
    if filled.size > _FEW_BINS:
        # Exact: float64 holds all integers up to 2^53.
        table = np.bincount(filled, counts)
        filled = np.flatnonzero(table != 0)
        return filled, table[filled].astype(np.int64)
    order = filled.argsort(kind="stable")
    filled = filled[order]
    first = np.ones(filled.size, np.bool_)
    np.not_equal(filled[1:], filled[:-1], out=first[1:])
    starts = first.nonzero()[0]
    return filled[starts], np.add.reduceat(counts[order], starts)


def _make(filled: Integers, counts: Integers, frame: tuple[int, ...], spare: int) -> Sketch:
    return Sketch(
        torch.from_numpy(filled), torch.from_numpy(counts), torch.from_numpy(np.array(frame)), spare
    )


def _sketch_on_device(patterns: torch.Tensor, finite: torch.Tensor | None, spare: int) -> Sketch:
    """Return the same sketch without reading a value on the host, so without synchronisation."""
    ordered = _ordered(patterns)
    below, above = ordered <= _LOWEST, ordered >= _HIGHEST
    kept = ~(below | above)
    if finite is not None:
        below, above, kept = below & finite, above & finite, kept & finite
    outside = torch.count_nonzero(below), torch.count_nonzero(above)
    if ordered.numel() == 0:
        return _empty_on_device(patterns.device, spare, outside)
    low = torch.where(kept, ordered, _HIGHEST).amin().to(torch.int64)
    high = torch.where(kept, ordered, _LOWEST).amax().to(torch.int64)
    shift, start = _window(low, high)
    counts = torch.zeros(BINS + 1, dtype=torch.int64, device=patterns.device)
    one = torch.ones((), dtype=torch.int64, device=patterns.device)
    for block, held in zip(
        split_blocks(ordered, _DEVICE_BLOCK), split_blocks(kept, _DEVICE_BLOCK), strict=True
    ):
        keys = (block.to(torch.int64) >> shift) - start
        keys = torch.where(held, keys, BINS)  # an extra bin for excluded elements
        counts.scatter_add_(0, keys, one.expand(keys.shape))
    return Sketch(None, counts[:BINS].clone(), torch.stack((shift, start, low, high, *outside)), spare)


def _empty(spare: int, below: int = 0, above: int = 0) -> Sketch:
    nothing = np.zeros(0, np.int64)
    shift, start = _window_on_host(_HIGHEST, _LOWEST)
    return _make(nothing, nothing, (shift, start, _HIGHEST, _LOWEST, below, above), spare)


def _empty_on_device(device: torch.device, spare: int, outside: tuple[torch.Tensor, torch.Tensor]) -> Sketch:
    low, high = (torch.full((), end, dtype=torch.int64, device=device) for end in (_HIGHEST, _LOWEST))
    frame = torch.stack((*_window(low, high), low, high, *outside))
    return Sketch(None, torch.zeros(BINS, dtype=torch.int64, device=device), frame, spare)


def _ordered(patterns: torch.Tensor) -> torch.Tensor:
    """Map float32 patterns (int32) to integers in the order of the values; 0.0 stays 0."""
    return patterns ^ ((patterns >> 31) & MAGNITUDE_BITS)


def _ordered_pattern(value: float) -> int:
    """Return the ordered pattern of a float32 number; that of -0.0 is 0."""
    pattern: int
    (pattern,) = _INTEGER.unpack(_SINGLE.pack(value + 0.0))
    return pattern if pattern >= 0 else pattern ^ MAGNITUDE_BITS


def _subnormals_are_flushed() -> bool:
    """Return whether the host program made this thread take subnormal numbers for zero."""
    return _SUBNORMAL * 0.5 == 0.0


def _window_on_host(low: int, high: int) -> tuple[int, int]:
    """Return the fewest bits to drop so that [low, high] fits, and the first bin of the window."""
    shift = max((high - low).bit_length() - 17, 0) if high > low else 0
    while (high >> shift) - (low >> shift) >= BINS:
        shift += 1
    return shift, -BINS // 2 if shift == _COARSEST else 0 if low > high else low >> shift


def _window(low: torch.Tensor, high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the same without reading a value on the host."""
    shifts = _constants(tuple(range(_COARSEST + 1)), low.device)
    # Spans shrink with every dropped bit: the number of spans that are too wide is the first that fits.
    shift = (((high >> shifts) - (low >> shifts)) >= BINS).sum()
    start = torch.where(shift == _COARSEST, -BINS // 2, torch.where(low > high, 0, low >> shift))
    return shift, start


def _window_of_everything(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    shift, start = _constants((_COARSEST, -BINS // 2), device)
    return shift, start


@lru_cache(maxsize=64)
def _constants(numbers: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Return these integers on a device: bringing them there again would wait for it."""
    # What is made in inference mode could not be used outside of it.
    with torch.inference_mode(False):
        return torch.tensor(numbers, dtype=torch.int64, device=device)


@lru_cache(maxsize=8)
def _all_bins(device: torch.device) -> torch.Tensor:
    with torch.inference_mode(False):
        return torch.arange(BINS, device=device)
