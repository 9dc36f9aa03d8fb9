"""Sums over the values of a tensor, exact to seven digits of its rms in as few readings as possible."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from fno_telemetry.statistics.sketch import split_blocks

if TYPE_CHECKING:
    from fno_telemetry.statistics.activation import Activation

_ROW = 4096  # elements whose pairwise float32 sum is accurate to seven digits
_ROWS_AT_A_TIME = 64  # 1 MiB, which fits in the cache
_SAFE_SPREAD = 0.1  # variance of |x| over the mean square above which seven digits are enough


@dataclass(frozen=True)
class ValueSums:
    """The mean of all values, the energy around it and the sum of |x|, in units of `Activation.scale`."""

    mean: torch.Tensor
    energy: torch.Tensor
    absolute: torch.Tensor


def compute_value_sums(activation: "Activation") -> ValueSums:
    """Return the sums over all finite values."""
    low, high = activation.extremes
    one_sided = activation.on_host and bool((low >= 0) | (high <= 0))
    flat = activation.flat
    narrow = activation.on_host and activation.scale is None and flat.dtype == torch.float32
    if narrow and flat.numel() >= _ROWS_AT_A_TIME * _ROW:
        in_rows = flat.numel() // _ROW * _ROW
        rows = _row_sums(flat[:in_rows].view(-1, _ROW), one_sided)
        pooled = _pool([rows, _block_sums(activation, flat[in_rows:], None, one_sided)])
        # If |x| is nearly constant, its spread needs all digits of float64.
        mean_square = pooled.energy / flat.numel() + pooled.mean.square()
        if 1 - (pooled.absolute / flat.numel()).square() / mean_square > _SAFE_SPREAD:
            return pooled
    return _pool([_block_sums(activation, flat, activation.flat_finite, one_sided)])


def _pool(parts: list[torch.Tensor]) -> ValueSums:
    """Return mean, energy around it and sum of |x| over all columns (number, mean, energy, sum of |x|)."""
    numbers, means, energies, absolutes = torch.cat(parts, 1)
    mean = (numbers * means).sum() / numbers.sum().clamp(min=1)
    between = (numbers * (means - mean).square()).sum()
    return ValueSums(mean, energies.sum() + between, absolutes.sum())


def _block_sums(
    activation: "Activation", flat: torch.Tensor, finite: torch.Tensor | None, one_sided: bool
) -> torch.Tensor:
    """Return number, mean, energy around it and sum of |x| of each block, as rows of a float64 tensor."""
    blocks = split_blocks(flat, activation.block_elements)
    masks = [None] * len(blocks) if finite is None else split_blocks(finite, activation.block_elements)
    inverse = None if activation.scale is None else 1 / activation.scale
    # Two buffers are shared by all blocks: allocating memory costs more than the sums.
    buffers = torch.empty((2, blocks[0].numel()), dtype=activation.accumulator, device=flat.device)
    columns = []
    for block, mask in zip(blocks, masks, strict=True):
        number = _number(block, mask)
        wide, rest = buffers[:, : block.numel()]
        wide.copy_(block)
        if inverse is not None:
            wide *= inverse
        mean = wide.sum() / number.clamp(min=1)
        torch.sub(wide, mean, out=rest)
        if mask is not None:
            rest *= mask
        energy = rest.dot(rest)
        absolute = (mean * number).abs() if one_sided else torch.abs(wide, out=rest).sum()
        columns.append(torch.stack((number.to(mean.dtype), mean, energy, absolute)))
    return torch.stack(columns, 1)


def _row_sums(rows: torch.Tensor, one_sided: bool) -> torch.Tensor:
    """Return number, mean, energy around it and sum of |x| of each row, as rows of a float64 tensor.

    Sums over one row are pairwise in float32, accurate to seven digits, which is faster than converting every
    element.
    """
    sums_of_blocks = []
    buffer = torch.empty_like(rows[:_ROWS_AT_A_TIME])
    for start in range(0, rows.shape[0], _ROWS_AT_A_TIME):
        some = rows[start : start + _ROWS_AT_A_TIME]
        rest = buffer[: some.shape[0]]
        sums = some.sum(1)
        mean = sums.double() / _ROW
        near = mean.to(some.dtype)
        torch.sub(some, near.unsqueeze(1), out=rest)
        # Corrects for the rounding of the mean.
        energy = torch.square(rest, out=rest).sum(1).double() - _ROW * (mean - near).square()
        absolute = sums.abs() if one_sided else torch.abs(some, out=rest).sum(1)
        number = torch.full_like(mean, _ROW)
        sums_of_blocks.append(torch.stack((number, mean, energy.clamp(min=0), absolute.double())))
    return torch.cat(sums_of_blocks, 1)


def _number(block: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    if mask is None:
        return torch.tensor(block.numel(), dtype=torch.int64, device=block.device)
    return torch.count_nonzero(mask)
