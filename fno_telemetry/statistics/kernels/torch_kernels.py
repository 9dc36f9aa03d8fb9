"""The kernels with torch and NumPy alone: sums of float32 rows are pairwise, and added up in float64."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from fno_telemetry.statistics.kernels.signatures import Array, Floats, Integers, RowSums

SMALL = 1 << 14
"""Up to so many elements float64 copies cost less than the further steps that they save."""

_ROW = 4096  # elements whose pairwise float32 sum is right to seven digits
_ROWS_AT_A_TIME = 64  # 1 MiB, which fits in the cache
_COUNTED_AT_A_TIME = 1 << 17
_POSITIONS_AT_A_TIME = 1 << 15
_SORTED = 1 << 12  # counting fewer values by sorting them is faster than by a table
_BINS = 1 << 16
_SIGN, _MAGNITUDE = 0x80000000, 0x7FFFFFFF
_LEAST_VARIATION = 1e-6
"""Share of the energy around the mean field below which its float32 rounding matters."""


class TorchKernels:
    """Loops in blocks that fit in the cache, each block by a few functions of torch or NumPy."""

    @property
    def name(self) -> str:
        """What computes them, with its version."""
        return f"torch {torch.__version__.partition('+')[0]}"

    def sum_rows(self, rows: Array) -> RowSums:
        """Return extremes and sums of each row, and sums over all."""
        if rows.size <= SMALL:
            return _sum_few(rows)
        tensor = torch.from_numpy(rows)
        low, high, total = (
            of_rows.to(torch.float64).numpy() for of_rows in (tensor.amin(1), tensor.amax(1), tensor.sum(1))
        )
        squares = _sum_by_rows(tensor.view(-1), torch.square)
        one_sided = low.min() >= 0 or high.max() <= 0
        absolute = abs(float(np.add.reduce(total))) if one_sided else _sum_by_rows(tensor.view(-1), torch.abs)
        return RowSums(low, high, total, squares, absolute)

    def count_bins(self, values: Array, shift: int, start: int) -> tuple[Integers, Integers]:
        """Return the filled bins and their counts."""
        patterns = values.view(np.int32)
        if values.size <= _SORTED:
            return _count_sorted((order_patterns(patterns) >> shift) - start)
        table = _count_raw(patterns, shift, start) if shift >= 15 else _count_ordered(patterns, shift, start)
        filled = np.flatnonzero(table != 0)
        return filled, table[filled]

    def count_zeros(self, values: Array) -> int:
        """Return the number of zeros of either sign."""
        return _count_where(np.equal, values)

    def count_negative(self, values: Array) -> int:
        """Return the number of values below zero."""
        return _count_where(np.less, values)

    def mean_and_energy(self, samples: Array) -> tuple[Floats, float]:
        """Return the mean field and the energy around it."""
        number = len(samples)
        if number == 1:
            return samples[0].astype(np.float64), 0.0
        if samples.size > SMALL:
            mean, energy = _mean_and_energy(samples)
            if energy > _LEAST_VARIATION * (energy + number * float(mean.dot(mean))):
                return mean, energy
        return _exact_mean_and_energy(samples)

    def add_squares(self, coefficients: Array, grid: Floats) -> None:
        """Add the energies of coefficients over all fields; overwrites `coefficients`."""
        if coefficients.size <= SMALL:
            parts = coefficients.view(coefficients.real.dtype)
            grid += np.einsum("ij,ij->j", parts, parts).reshape(-1, 2).sum(1, dtype=np.float64)
        else:
            squares = torch.view_as_real(torch.from_numpy(coefficients)).square_()
            grid += squares.sum(0).sum(-1).numpy()

    def sum_operands(self, first: Array, second: Array, means: Floats) -> Floats:
        """Return the energies of two operands around their means."""
        one, other = torch.from_numpy(first), torch.from_numpy(second)
        near = torch.from_numpy(means).to(one.dtype)
        points = first.shape[1]
        step = max(_ROW * _ROWS_AT_A_TIME // points, 1)
        # Buffers are shared by all blocks: allocating memory costs more than the sums.
        buffers = torch.empty((3, one[:step].numel()), dtype=one.dtype, device="cpu")
        sums = np.zeros(4)
        for at in range(0, len(first), step):
            block = slice(at, at + step)
            s, t, joined = buffers[:, : one[block].numel()].view(3, -1, points)
            torch.sub(one[block], near[0, block, None], out=s)
            torch.sub(other[block], near[1, block, None], out=t)
            # What is left of the means, because those were rounded.
            s_off, t_off = (part.sum(1).to(torch.float64).numpy() / points for part in (s, t))
            both_off = s_off + t_off
            offsets = s_off.dot(s_off), t_off.dot(t_off), both_off.dot(both_off), s_off.dot(t_off)
            sums -= points * np.array(offsets)
            sums[2] += _sum_rows_of(torch.add(s, t, out=joined).square_().view(-1))
            sums[3] += _sum_rows_of(torch.mul(s, t, out=joined).view(-1))
            sums[0] += _sum_rows_of(s.square_().view(-1))
            sums[1] += _sum_rows_of(t.square_().view(-1))
        return sums

    def energy_of_change(self, before: Array, after: Array) -> float:
        """Return the energy of the difference."""
        one, other = torch.from_numpy(before).view(-1), torch.from_numpy(after).view(-1)
        buffer = torch.empty_like(one[: _ROW * _ROWS_AT_A_TIME])
        energy = 0.0
        for at in range(0, one.numel(), buffer.numel()):
            block = slice(at, at + buffer.numel())
            change = torch.sub(other[block], one[block], out=buffer[: one[block].numel()])
            energy += _sum_rows_of(change.square_())
        return energy


def order_patterns(patterns: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Map patterns of float32 numbers to integers in the order of the values; both zeros become 0."""
    ordered: npt.NDArray[np.int32] = patterns ^ ((patterns >> 31) & np.int32(_MAGNITUDE))
    # The pattern of -0.0.
    ordered += patterns == np.int32(-(2**31))
    return ordered


def _sum_few(rows: Array) -> RowSums:
    # NumPy warns of what is not finite, also where it is copied.
    with np.errstate(all="ignore"):
        wide = rows.astype(np.float64)
        flat = wide.reshape(-1)
        return RowSums(
            np.minimum.reduce(wide, 1),
            np.maximum.reduce(wide, 1),
            np.add.reduce(wide, 1),
            float(flat.dot(flat)),
            float(np.add.reduce(np.abs(flat))),
        )


def _count_where(is_so: np.ufunc, values: Array) -> int:
    """Return for how many values the comparison with zero is true, in blocks with one buffer."""
    found = np.empty(min(_COUNTED_AT_A_TIME, values.size), np.bool_)
    number = 0
    for at in range(0, values.size, _COUNTED_AT_A_TIME):
        block = values[at : at + _COUNTED_AT_A_TIME]
        number += int(np.count_nonzero(is_so(block, 0, out=found[: block.size])))
    return number


def _by_rows(size: int) -> list[tuple[slice, tuple[int, int]]]:
    """Return the slices of a flat array, and the shape (rows, elements) of each."""
    whole = size // _ROW * _ROW
    step = _ROW * _ROWS_AT_A_TIME
    blocks = [(slice(at, min(at + step, whole)), (-1, _ROW)) for at in range(0, whole, step)]
    return [*blocks, (slice(whole, size), (1, -1))] if whole < size else blocks


def _sum_rows_of(flat: torch.Tensor) -> float:
    parts = [flat[block].view(shape).sum(1) for block, shape in _by_rows(flat.numel())]
    return sum(float(part.sum(dtype=torch.float64)) for part in parts)


def _sum_by_rows(flat: torch.Tensor, function: Callable[..., torch.Tensor]) -> float:
    buffer = torch.empty_like(flat[: _ROW * _ROWS_AT_A_TIME])
    total = 0.0
    for block, shape in _by_rows(flat.numel()):
        values = flat[block]
        changed = function(values, out=buffer[: values.numel()])
        total += float(changed.view(shape).sum(1).sum(dtype=torch.float64))
    return total


def _count_sorted(keys: npt.NDArray[np.int32]) -> tuple[Integers, Integers]:
    keys.sort()
    ends = np.empty(keys.size, np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=ends[:-1])
    ends[-1] = True
    last = ends.nonzero()[0]
    counts = last + 1
    counts[1:] -= counts[:-1].copy()
    return keys[last].astype(np.int64), counts


def _count_raw(patterns: npt.NDArray[np.int32], shift: int, start: int) -> Integers:
    """Count unordered patterns, and put the bins in order afterwards: one step less for every element."""
    unsigned = patterns.view(np.uint32)
    size = 1 << (32 - shift)
    table = np.zeros(size, np.int64)
    keys = np.empty(min(_COUNTED_AT_A_TIME, unsigned.size), np.int64)
    for at in range(0, unsigned.size, _COUNTED_AT_A_TIME):
        block = unsigned[at : at + _COUNTED_AT_A_TIME]
        key = np.right_shift(block, np.uint32(shift), out=keys[: block.size], casting="unsafe")
        table += np.bincount(key, minlength=size)
    half = size // 2
    if table[half]:
        # The first negative bin holds -0.0, which belongs to the bin of zero.
        zeros = int(np.count_nonzero(unsigned == np.uint32(_SIGN)))
        table[half] -= zeros
        table[0] += zeros
    ordered = np.concatenate((table[half:][::-1], table[:half]))
    return ordered[half + start : half + start + _BINS]


def _count_ordered(patterns: npt.NDArray[np.int32], shift: int, start: int) -> Integers:
    table = np.zeros(_BINS, np.int64)
    for at in range(0, patterns.size, _COUNTED_AT_A_TIME):
        keys = (order_patterns(patterns[at : at + _COUNTED_AT_A_TIME]) >> shift) - start
        table += np.bincount(keys, minlength=_BINS)
    return table


def _mean_and_energy(samples: Array) -> tuple[Floats, float]:
    """Sum deviations from a float32 mean, and correct both results for its rounding."""
    rows = torch.from_numpy(samples)
    number, positions = rows.shape
    width = min(max(_ROW * _ROWS_AT_A_TIME // number, 64), positions)
    mean = np.empty(positions, np.float64)
    buffer = torch.empty((number * width,), dtype=rows.dtype, device="cpu")
    energy = 0.0
    for at in range(0, positions, width):
        block = rows[:, at : at + width]
        near = block.mean(0)
        rest = torch.sub(block, near, out=buffer[: block.numel()].view(block.shape))
        off = rest.mean(0).numpy().astype(np.float64)
        np.add(near.numpy(), off, out=mean[at : at + width])
        squares = rest.square_().view(-1)
        energy += sum(
            float(squares[b].view(s).sum(1).sum(dtype=torch.float64)) for b, s in _by_rows(len(squares))
        )
        energy -= number * float(off.dot(off))
    return mean, energy


def _exact_mean_and_energy(samples: Array) -> tuple[Floats, float]:
    number, positions = samples.shape
    width = max(_COUNTED_AT_A_TIME // number, 1)
    mean = np.empty(positions, np.float64)
    energy = 0.0
    for at in range(0, positions, width):
        wide = samples[:, at : at + width].astype(np.float64)
        near = np.add.reduce(wide, 0) / number
        wide -= near
        flat = wide.reshape(-1)
        energy += float(flat.dot(flat))
        mean[at : at + width] = near
    return mean, energy
