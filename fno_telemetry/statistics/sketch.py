"""A mergeable sketch of a distribution: counts over the leading bits of the float32 pattern.

Sign, exponent and leading mantissa bits of a float32, as one integer, form a signed logarithmic bin. The
integers are ordered like the values, so consecutive integers form an interval. A window of 2^16 bins covers
all float32 numbers with 128 bins per octave; if the values span a smaller range, the window keeps more bits,
down to single values. How many bits are dropped depends only on the smallest and largest value, and bins
merge only in pairs, so any split of the data gives exactly the sketch of the whole.
"""

from dataclasses import dataclass
from functools import cached_property

import torch

BINS = 1 << 16
_COARSEST = 16
MAGNITUDE_BITS = 0x7FFFFFFF
_HIGHEST, _LOWEST = 0x7F800000, -0x7F800001  # ordered patterns of +inf and -inf
_SMALLEST_SUBNORMAL = 2.0**-149
_SPARE_BITS = {torch.bfloat16: 16, torch.float16: 13, torch.float32: 0}
_ROUNDED = -1  # instead of spare bits: the values were rounded to float32
_HOST_BLOCK, _DEVICE_BLOCK = 1 << 18, 1 << 22  # elements counted at a time

ROUNDING = 2.0**-23
"""Relative error of the conversion of a value to float32, |z| included."""

RELATIVE_ERROR = 2.0**-8 + ROUNDING
"""Bound of the relative error of every value from a sketch: half the widest bin over its lower edge, 0.39 %.

It applies to magnitudes that are normal in float32; bfloat16 values are exact.
"""


@dataclass(frozen=True)
class Sketch:
    """Counts over ordered float32 patterns: bin i holds the patterns with `(pattern >> shift) - start == i`.

    `low`, `high` are the extreme ordered patterns (low > high: empty). All tensors are int64. Float64 values
    outside the range of float32 are counted in `below` and `above`. `spare` is the number of trailing bits
    that are zero in every value (16 in bfloat16), which narrows the bins; it is negative if values were
    rounded to float32.
    """

    counts: torch.Tensor
    shift: torch.Tensor
    start: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    below: torch.Tensor
    above: torch.Tensor
    spare: int

    @cached_property
    def filled(self) -> torch.Tensor:
        """The indices of the bins that hold something, usually few of all; for a sketch on the host."""
        return torch.nonzero(self.counts).view(-1)

    def merge(self, other: "Sketch") -> "Sketch":
        """Return the sketch of both data sets; counts are added, never rounded."""
        low, high = torch.minimum(self.low, other.low), torch.maximum(self.high, other.high)
        shift, start = _window(low, high)
        counts = self._rebinned(shift, start) + other._rebinned(shift, start)
        below, above = self.below + other.below, self.above + other.above
        return Sketch(counts, shift, start, low, high, below, above, min(self.spare, other.spare))

    def negative_count(self, on_host: bool = False) -> torch.Tensor:
        """Return the number of values below zero; no bin holds both signs. `on_host`: reading one is free."""
        if on_host:
            return self.counts[: min(max(-int(self.start), 0), BINS)].sum() + self.below
        bins = torch.arange(BINS, device=self.counts.device)
        return torch.where(bins < -self.start, self.counts, 0).sum() + self.below

    def may_hold_zeros(self) -> bool:
        """Return whether the bin of zero is non-empty; reads a value on the host."""
        home = -int(self.start)
        return 0 <= home < BINS and int(self.counts[home]) > 0

    def _rebinned(self, shift: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        if _on_host(self.counts):
            return self._rebinned_on_host(int(shift), int(start))
        bins = torch.arange(BINS, device=self.counts.device)
        # Bins outside the new window are empty; clamping keeps their index valid.
        target = (((self.start + bins) >> (shift - self.shift)) - start).clamp(0, BINS - 1)
        return torch.zeros_like(self.counts).index_add_(0, target, self.counts)

    def _rebinned_on_host(self, shift: int, start: int) -> torch.Tensor:
        if shift == int(self.shift) and start == int(self.start):
            return self.counts
        target = ((int(self.start) + self.filled) >> (shift - int(self.shift))) - start
        return torch.zeros_like(self.counts).index_add_(0, target, self.counts[self.filled])


def sketch(
    values: torch.Tensor,
    finite: torch.Tensor | None,
    dtype: torch.dtype,
    extremes: tuple[torch.Tensor, torch.Tensor] | None = None,
    on_host: bool | None = None,
) -> Sketch:
    """Return the sketch of real floating point `values` of any shape, without those where `finite` is False.

    `dtype` is the precision of the values before any conversion to float32; `extremes` are the smallest and
    largest finite value, if they are known already. `on_host` says whether reading a value is free; by
    default it is on the CPU.
    """
    spare = _SPARE_BITS.get(dtype, _ROUNDED)
    flat = values.reshape(-1)
    if not (_on_host(flat) if on_host is None else on_host):
        return _sketch_on_device(_patterns(flat), None if finite is None else finite.reshape(-1), spare)
    if finite is not None:
        flat = flat[finite.reshape(-1)]
    if flat.numel() == 0:
        return _empty(flat.device, spare)
    return _sketch_on_host(flat, torch.stack(extremes or torch.aminmax(flat)), spare)


def split_blocks(flat: torch.Tensor, elements: int) -> list[torch.Tensor]:
    """Return views with this many elements of a one-dimensional tensor; at least one, which may be empty."""
    return [flat[start : start + elements] for start in range(0, max(flat.numel(), 1), elements)]


def magnitude_quantiles(sketch: Sketch, percents: tuple[int, ...]) -> torch.Tensor:
    """Return these percentiles of |x| as `torch.quantile` interpolates them, within RELATIVE_ERROR.

    Computed on the sketch's device without reading a value on the host. Magnitudes that are subnormal in
    float32 may become zero. NaN for an empty sketch and outside the range of float32.
    """
    device = sketch.counts.device
    precision = torch.float32 if device.type == "mps" else torch.float64
    half = BINS // 2
    if _on_host(sketch.counts):
        bins = ((sketch.filled + sketch.start) << sketch.shift) >> _COARSEST
        found, order = torch.where(bins < 0, -1 - bins, bins).sort()
        counts = sketch.counts[sketch.filled][order]
    else:
        counts = sketch._rebinned(*_window_of_everything(device))
        found, counts = torch.arange(half, device=device), counts[:half].flip(0) + counts[half:]
    cumulative = torch.cat((counts.new_zeros(1), counts)).cumsum(0)
    total = cumulative[-1] + sketch.below + sketch.above
    hundredths = (total - 1).clamp(min=0) * torch.tensor(percents, device=device)
    ranks = torch.stack((hundredths // 100, (hundredths + 99) // 100)) + 1
    places = torch.searchsorted(cumulative, ranks) - 1
    keys = torch.cat((found, found.new_full((1,), half)))[places]
    last = BINS - (1 << max(sketch.spare, 0))
    patterns = torch.stack((keys << _COARSEST, (keys << _COARSEST) + last)).to(torch.int32)
    lower, upper = patterns.view(torch.float32).to(precision) / 2
    ends = torch.where(keys == 0, 0.0, torch.where(keys < half, lower + upper, torch.nan))
    quantiles = torch.lerp(ends[0], ends[1], (hundredths % 100).to(precision) / 100)
    return torch.where(total > 0, quantiles, torch.nan)


def _on_host(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "cpu"


def _patterns(flat: torch.Tensor) -> torch.Tensor:
    """Return the float32 patterns (int32); values that underflow get the smallest magnitude, not zero."""
    narrow = flat.to(torch.float32)
    if flat.dtype == torch.float64:
        smallest = torch.full_like(narrow, _SMALLEST_SUBNORMAL).copysign(narrow)
        narrow = torch.where((narrow == 0) & (flat != 0), smallest, narrow)
    # Adding zero gives -0.0 the same pattern as 0.0.
    return (narrow + 0.0).view(torch.int32)


def _sketch_on_host(flat: torch.Tensor, ends: torch.Tensor, spare: int) -> Sketch:
    below = above = torch.zeros((), dtype=torch.int64, device=flat.device)
    ends = _patterns(ends)
    if not torch.isfinite(ends.view(torch.float32)).all():
        narrow = flat.to(torch.float32)
        below, above = torch.count_nonzero(narrow == -torch.inf), torch.count_nonzero(narrow == torch.inf)
        flat = flat[torch.isfinite(narrow)]
        if flat.numel() == 0:
            return _empty(flat.device, spare, below, above)
        ends = _patterns(torch.stack(torch.aminmax(flat)))
    low, high = _ordered(ends).to(torch.int64)
    shift, start = _window(low, high)
    bits, first = int(shift), int(start)
    total = torch.zeros(BINS, dtype=torch.int64, device=flat.device)
    for block in split_blocks(flat, _HOST_BLOCK):
        patterns = _patterns(block)
        # Counting raw patterns and sorting the bins afterwards is faster than ordering every element.
        if bits != _COARSEST and low < 0:
            patterns = _ordered(patterns)
        patterns >>= bits
        patterns -= first
        total += torch.bincount(patterns, minlength=BINS)
    if bits == _COARSEST:
        total = torch.cat((total[: BINS // 2].flip(0), total[BINS // 2 :]))
    return Sketch(total, shift, start, low, high, below, above, spare)


def _sketch_on_device(patterns: torch.Tensor, finite: torch.Tensor | None, spare: int) -> Sketch:
    """Return the same sketch without reading a value on the host, so without synchronisation."""
    ordered = _ordered(patterns)
    below, above = ordered <= _LOWEST, ordered >= _HIGHEST
    kept = ~(below | above)
    if finite is not None:
        below, above, kept = below & finite, above & finite, kept & finite
    outside = torch.count_nonzero(below), torch.count_nonzero(above)
    if ordered.numel() == 0:
        return _empty(patterns.device, spare, *outside)
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
    return Sketch(counts[:BINS].clone(), shift, start, low, high, *outside, spare)


def _empty(
    device: torch.device, spare: int, below: torch.Tensor | None = None, above: torch.Tensor | None = None
) -> Sketch:
    def number(value: int) -> torch.Tensor:
        return torch.tensor(value, dtype=torch.int64, device=device)

    shift, start = _window(number(_HIGHEST), number(_LOWEST))
    return Sketch(
        torch.zeros(BINS, dtype=torch.int64, device=device),
        shift,
        start,
        number(_HIGHEST),
        number(_LOWEST),
        number(0) if below is None else below,
        number(0) if above is None else above,
        spare,
    )


def _ordered(patterns: torch.Tensor) -> torch.Tensor:
    """Map float32 patterns (int32) to integers in the order of the values; 0.0 stays 0."""
    return patterns ^ ((patterns >> 31) & MAGNITUDE_BITS)


def _window(low: torch.Tensor, high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the fewest bits to drop so that [low, high] fits, and the first bin of the window."""
    shifts = torch.arange(_COARSEST + 1, device=low.device)
    # Spans shrink with every dropped bit: the number of spans that are too wide is the first that fits.
    shift = (((high >> shifts) - (low >> shifts)) >= BINS).sum()
    start = torch.where(shift == _COARSEST, -BINS // 2, torch.where(low > high, 0, low >> shift))
    return shift, start


def _window_of_everything(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(_COARSEST, device=device), torch.tensor(-BINS // 2, device=device)
