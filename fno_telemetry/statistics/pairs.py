"""Energies of two tensors of one shape together: the operands of a sum, or a tensor before and after it."""

import math

import numpy as np
import torch

from fno_telemetry.statistics import kernels
from fno_telemetry.statistics.activation import Activation
from fno_telemetry.statistics.field_energy import whole_fields
from fno_telemetry.statistics.kernels import Floats
from fno_telemetry.statistics.sums import FEW


def sum_operands(first: Activation, second: Activation) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the number of fields without non-finite elements, and six energies over them.

    The energies are those around the means of s, of t and of s + t; the sum of Re(conj(s) t) around the
    means; and those of the means of s and of t.
    """
    if _are_plain(first, second):
        energies = _sum_rows(first, second) if first.count > FEW else _sum_exactly(first, second)
        return torch.from_numpy(np.array(len(first.rows))), torch.from_numpy(energies)
    space = tuple(range(3, len(first.shape)))
    points = math.prod(first.sizes)
    finite = _both(first.finite, second.finite)
    whole_ones = None if finite is None else whole_fields(finite)
    sums = []
    for samples, channels in first.field_blocks():
        whole = None if whole_ones is None else whole_ones[samples, channels]
        s, s_mean = _centred(_parts(first, second, samples, channels), whole, space)
        t, t_mean = _centred(_parts(second, first, samples, channels), whole, space)
        product = s.reshape(-1).dot(t.reshape(-1))
        means = _energy(s_mean) * points, _energy(t_mean) * points
        sums.append(torch.stack((_energy(s), _energy(t), _energy(s + t), product, *means)))
    number = math.prod(first.shape[:3])
    fields = torch.full((), number, dtype=torch.int64, device=first.device)
    if whole_ones is not None:
        fields = torch.count_nonzero(whole_ones)
    return fields, torch.stack(sums).sum(0)


def sum_change(before: Activation, after: Activation) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the number of elements finite in both, and the energies of the change and of `before`."""
    if _are_plain(before, after):
        return before.finite_count, torch.from_numpy(np.array(_change_and_energy(before, after)))
    finite = _both(before.finite, after.finite)
    sums = []
    for samples, channels in before.field_blocks():
        x = _parts(before, after, samples, channels)
        rest = _parts(after, before, samples, channels) - x
        if finite is not None:
            kept = finite[samples, channels].unsqueeze(-1)
            x, rest = torch.where(kept, x, 0), torch.where(kept, rest, 0)
        sums.append(torch.stack((_energy(rest), _energy(x))))
    number = before.finite_count if finite is None else torch.count_nonzero(finite)
    return number, torch.stack(sums).sum(0)


def _are_plain(first: Activation, second: Activation) -> bool:
    """Return whether both are on the host, real and finite, with squares that are safe without scaling."""
    return first.precision == second.precision and all(
        side.on_host and side.finite is None and not side.complex and side.scale is None
        for side in (first, second)
    )


def _sum_rows(first: Activation, second: Activation) -> Floats:
    """Return the energies without a copy of both."""
    points = math.prod(first.sizes)
    means = np.stack((first.row_sums.total, second.row_sums.total)) / points
    sums = kernels.active().sum_operands(first.rows, second.rows, means)
    return np.concatenate((sums, [points * float(mean.dot(mean)) for mean in means]))


def _sum_exactly(first: Activation, second: Activation) -> Floats:
    """Return the energies of few elements, from float64 copies."""
    points = math.prod(first.sizes)
    s, t = (side.rows.astype(np.float64) for side in (first, second))
    s_mean, t_mean = np.add.reduce(s, 1) / points, np.add.reduce(t, 1) / points
    s -= s_mean[:, None]
    t -= t_mean[:, None]
    s, t = s.reshape(-1), t.reshape(-1)
    both = s + t
    means = s_mean.dot(s_mean) * points, t_mean.dot(t_mean) * points
    return np.array((s.dot(s), t.dot(t), both.dot(both), s.dot(t), *means))


def _change_and_energy(before: Activation, after: Activation) -> tuple[float, float]:
    if before.count > FEW:
        return kernels.active().energy_of_change(before.rows, after.rows), before.row_sums.energy
    one, other = (side.rows.astype(np.float64).reshape(-1) for side in (before, after))
    change = other - one
    return float(change.dot(change)), float(one.dot(one))


def _parts(activation: Activation, other: Activation, samples: slice, channels: slice) -> torch.Tensor:
    """Return a block at the precision for sums, with real and imaginary parts along a last axis.

    Float64 holds the squares of all float32 values, so nothing is scaled.
    """
    block = activation.stored[samples, channels]
    wide = block.to(torch.promote_types(activation.precision, activation.accumulator))
    if other.complex and not activation.complex:
        wide = torch.complex(wide, torch.zeros_like(wide))
    return torch.view_as_real(wide) if wide.is_complex() else wide.unsqueeze(-1)


def _energy(parts: torch.Tensor) -> torch.Tensor:
    flat = parts.reshape(-1)
    return flat.dot(flat)


def _both(first: torch.Tensor | None, second: torch.Tensor | None) -> torch.Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first & second


def _centred(
    parts: torch.Tensor, whole: torch.Tensor | None, space: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return fields without their means, and the means; both are zero for fields that are not finite."""
    mean = parts.mean(space, keepdim=True)
    rest = parts - mean
    if whole is not None:
        kept = whole.unsqueeze(-1)
        rest, mean = torch.where(kept, rest, 0), torch.where(kept, mean, 0)
    return rest, mean
