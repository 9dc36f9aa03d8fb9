"""The energy of fields over the coefficients of their Fourier transform, separate from their means [1].

[1] Parseval's theorem: the energies of all coefficients sum to the energy of the field.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from fno_telemetry.statistics import kernels
from fno_telemetry.statistics.frequency_grid import FrequencyGrid, frequency_grid
from fno_telemetry.statistics.kernels import Floats

if TYPE_CHECKING:
    from fno_telemetry.statistics.activation import Activation

NO_ENERGY = 1e-12
"""Energy around the mean below this share of the total counts as zero, because it is rounding error."""

_LEAST_AROUND_MEANS = 1e-3
"""Energy around the means, over that of the means, below which the rounding of their transform would show.

Here it changes shares by 1e-7, and by ten times as much at a hundredth of this.
"""


_LARGEST = 1e18
"""Bound of the magnitude of coefficients whose squares, and sums of these, fit in float32."""


@dataclass(frozen=True)
class FieldEnergy:
    """Energy per coefficient of the transform, summed over the fields of a tensor.

    `grid` has the shape of the coefficients, without weights for conjugates; its first entry is 0, because
    `dc` is the energy of the means. `counted` is the same with weights. All are in units of x^2, summed over
    points as in Parseval's theorem.
    """

    grid: torch.Tensor
    counted: torch.Tensor
    dc: torch.Tensor
    fields: torch.Tensor
    fields_left_out: torch.Tensor


@dataclass(frozen=True)
class HostEnergy:
    """The same of an activation on the host; `energies` are those of `FieldEnergy.grid`, in one dimension."""

    grid: FrequencyGrid
    energies: Floats
    dc: float
    fields: int
    fields_left_out: int


def compute_field_energy(activation: "Activation") -> FieldEnergy:
    """Transform every field over space, except fields with a non-finite element."""
    field, finite = activation.scaled, activation.finite
    transform = torch.fft.fftn if activation.complex else torch.fft.rfftn
    space = tuple(range(3, field.ndim))
    ones = [1] * len(space)
    number = math.prod(activation.sizes)
    precision = torch.promote_types(field.dtype, activation.accumulator)
    grids, energies = [], []
    left_out: list[torch.Tensor] = []
    # Buffers are shared by all blocks: allocating memory costs more than the transform.
    rests = coefficients = field.new_empty(0)
    for samples, channels in activation.field_blocks():
        block = field[samples, channels]
        if rests.shape != block.shape:
            rests, coefficients = torch.empty_like(block), _coefficients_like(block)
        # Summing over a single axis: over several axes the conversion takes many times as long.
        mean = block.flatten(3).sum(3, dtype=precision).reshape(*block.shape[:3], *ones) / number
        rest = torch.sub(block, mean.to(field.dtype), out=rests)
        if finite is not None:
            whole = whole_fields(finite[samples, channels])
            rest, mean = torch.where(whole, rest, 0), torch.where(whole, mean, 0)
            left_out.append(torch.count_nonzero(~whole))
        transform(rest, dim=space, norm="ortho", out=coefficients)
        squares = torch.view_as_real(coefficients).square_()
        grids.append(squares.sum((0, 1, 2)).sum(-1).to(activation.accumulator))
        energies.append(mean.abs().square().sum())
    grid = torch.stack(grids).sum(0)
    grid.view(-1)[0] = 0  # the rounding error of the mean
    unit = activation.unit.square()
    fields = torch.full((), math.prod(field.shape[:3]), dtype=torch.int64, device=field.device)
    grid = grid * unit
    weight = frequency_grid(activation.sizes, not activation.complex, activation.device).weight
    lost = torch.stack(left_out).sum() if left_out else torch.zeros_like(fields)
    return FieldEnergy(
        grid=grid,
        counted=grid * weight,
        dc=torch.stack(energies).sum() * number * unit,
        fields=fields - lost,
        fields_left_out=lost,
    )


def compute_host_energy(activation: "Activation") -> HostEnergy:
    """Transform whole fields in host memory, with their means unless these hold nearly all of the energy."""
    grid = frequency_grid(activation.sizes, not activation.complex, activation.device)
    if activation.finite is not None or activation.scale is not None or activation.count == 0:
        found = compute_field_energy(activation)
        counts = int(found.fields), int(found.fields_left_out)
        return HostEnergy(grid, found.grid.numpy().reshape(-1), float(found.dc), *counts)
    points = math.prod(activation.sizes)
    fields = activation.stored.view(-1, *activation.sizes)
    if activation.complex:
        totals = fields.flatten(1).sum(1).to(torch.complex128).numpy()
    else:
        totals = activation.row_sums.total
    dc = float(np.vdot(totals, totals).real) / points
    remove = activation.row_sums.energy - dc <= _LEAST_AROUND_MEANS * dc
    space = tuple(range(1, fields.ndim))
    transform = torch.fft.fftn if activation.complex else torch.fft.rfftn
    step = max(activation.block_elements // points, 1)
    energies = np.zeros(grid.host_weight.size, np.float64)
    # A transform that scales takes a fifth longer, and so does one into given memory.
    is_scaled = max(map(abs, activation.ends)) * points > _LARGEST
    number = fields.shape[0]
    for at in range(0, number, step):
        block = fields[at : at + step].to(activation.precision)
        if remove:
            means = torch.from_numpy(totals[at : at + step] / points).to(block.dtype)
            block = block - means.reshape(-1, *(1 for _ in space))
        coefficients = transform(block, dim=space, norm="ortho" if is_scaled else "backward")
        kernels.active().add_squares(coefficients.numpy().reshape(-1, energies.size), energies)
    energies[0] = 0
    if not is_scaled:
        energies /= points
    return HostEnergy(grid, energies, dc, number, 0)


def _coefficients_like(block: torch.Tensor) -> torch.Tensor:
    """Return a buffer for the transform of real or complex fields over all axes from the fourth on."""
    if block.is_complex():
        return torch.empty_like(block)
    shape = (*block.shape[:-1], block.shape[-1] // 2 + 1)
    return torch.empty(shape, dtype=torch.promote_types(block.dtype, torch.complex32), device=block.device)


def whole_fields(finite: torch.Tensor) -> torch.Tensor:
    """Return a mask (B, C, E, 1, ...) of the fields without non-finite elements."""
    return finite.flatten(3).all(3).reshape(*finite.shape[:3], *(1 for _ in finite.shape[3:]))


def explain_no_energy(total: float, dc: float, fields: int) -> str | None:
    """Return why shares of the energy around the means are undefined, None if they are defined."""
    if fields == 0:
        return "every field holds a non-finite element"
    if not math.isfinite(total + dc):
        return "the squares overflow float64"
    if total + dc == 0:
        return "the fields are zero, or their squares underflow float64"
    return "the fields are constant in space" if total <= NO_ENERGY * (total + dc) else None
