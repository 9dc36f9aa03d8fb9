"""Sums over the values of a tensor, exact to seven digits of its rms in as few readings as possible."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from fno_telemetry.statistics.activation import Activation

LEAST_SHARE = 1e-3
"""Share of an energy that may be left of a difference of energies, each right to twelve digits.

Where less is left, as where the mean is more than thirty times the standard deviation, every value is read
again.
"""

FEW = 1 << 14
"""Elements of which a float64 copy costs little."""


@dataclass(frozen=True)
class ValueSums:
    """The mean of all values, the energy around it and the sum of |x|, in units of `Activation.scale`."""

    mean: torch.Tensor
    energy: torch.Tensor
    absolute: torch.Tensor


def compute_host_sums(activation: "Activation") -> tuple[float, float, float]:
    """Return the numbers of `ValueSums` of an activation on the host."""
    low, high = activation.ends
    number = activation.flat.numel()
    if number == 0:
        return 0.0, 0.0, 0.0
    one_sided = low >= 0 or high <= 0
    if activation.scale is None and activation.finite is None:
        sums = activation.row_sums
        total, absolute = float(np.add.reduce(sums.total)), float(np.add.reduce(sums.magnitudes))
        mean = total / number
        energy = sums.energy - total * mean
        # If |x| is nearly constant, its spread needs all digits of float64.
        spread = sums.energy if one_sided else sums.energy - absolute * absolute / number
        if min(energy, spread) > LEAST_SHARE * sums.energy:
            return mean, energy, absolute
    if number > FEW:
        careful = compute_value_sums(activation)
        return float(careful.mean), float(careful.energy), float(careful.absolute)
    wide = activation.flat_array.astype(np.float64)
    if activation.scale is not None:
        wide *= 1 / float(activation.scale)
    mean = float(np.add.reduce(wide)) / number
    rest = wide - mean
    energy = float(rest.dot(rest))
    return mean, energy, abs(mean) * number if one_sided else float(np.add.reduce(np.abs(wide)))


def compute_value_sums(activation: "Activation") -> ValueSums:
    """Return the sums over all finite values, from float64 copies of all of them, block by block."""
    one_sided = False
    if activation.on_host:
        low, high = activation.ends
        one_sided = low >= 0 or high <= 0
    columns = _block_sums(activation, activation.flat, activation.flat_finite, one_sided)
    numbers, means, energies, absolutes = columns
    mean = (numbers * means).sum() / numbers.sum().clamp(min=1)
    between = (numbers * (means - mean).square()).sum()
    return ValueSums(mean, energies.sum() + between, absolutes.sum())


def split_blocks(flat: torch.Tensor, elements: int) -> list[torch.Tensor]:
    """Return views with this many elements of a one-dimensional tensor; at least one, which may be empty."""
    return [flat[start : start + elements] for start in range(0, max(flat.numel(), 1), elements)]


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


def _number(block: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    if mask is None:
        return torch.full((), block.numel(), dtype=torch.int64, device=block.device)
    return torch.count_nonzero(mask)
