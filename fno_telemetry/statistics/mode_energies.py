"""The energy of spectral weights by mode, from one reading of their memory."""

import math

import torch

from fno_telemetry.statistics import kernels, reading
from fno_telemetry.statistics.memory_blocks import block_size
from fno_telemetry.statistics.norms import real_parts


def find_modes(tensor: torch.Tensor, channels: tuple[int, int], axes: int) -> torch.Tensor | None:
    """Return spectral weights as pairs of real numbers, (*channels, *modes, 2); None for other tensors.

    Modes have the last `axes` axes. None also where the sizes allow more than one reading: channels and modes
    in another order, or fewer axes of modes, as in a layer that transforms one axis after the other.
    """
    into, out = channels
    shape = tuple(tensor.shape)
    if not tensor.is_complex():
        if tensor.ndim < 2 or shape[-1] != 2 or not tensor.is_floating_point():
            return None
        shape = shape[:-1]
    if len(shape) <= axes:
        return None
    front, modes = shape[: len(shape) - axes], shape[len(shape) - axes :]
    dense = front in ((into, out), (out, into))
    depthwise = into == out and front == (into,)
    if not (dense or depthwise) or math.prod(modes) < 2:
        return None
    if dense and len({*shape}) == 1:
        return None
    if depthwise and not dense and shape[1] == into:
        return None
    return real_parts(tensor)


def measure_energies(pairs: torch.Tensor, axes: int) -> torch.Tensor:
    """Return the sum of |w|^2 over channels, (*modes,), of weights (*channels, *modes, 2) of any precision.

    In float64, or in float32 on devices without it; right to six digits, but for modes with at most 1e-12 of
    the energy of the largest one.
    """
    modes = pairs.shape[pairs.ndim - 1 - axes : -1]
    if type(pairs) is torch.Tensor and pairs.dtype == torch.float32:
        array = reading.as_array(pairs)
        if array is not None and array.size:
            columns = kernels.active().column_energies(array.reshape(-1, 2 * math.prod(modes)))
            return torch.from_numpy(columns.reshape(*modes, 2).sum(-1))
    wide = torch.float32 if pairs.device.type == "mps" else torch.float64
    summed = (*range(pairs.ndim - 1 - axes), pairs.ndim - 1)
    parts: tuple[torch.Tensor, ...] = (pairs,)
    if type(pairs) is torch.Tensor:
        # Torch converts all that it is given; a tensor that is spread over processes would be gathered.
        parts = torch.split(pairs, max(block_size(pairs) * pairs.shape[0] // max(pairs.numel(), 1), 1))
    energies = [torch.linalg.vector_norm(part, dim=summed, dtype=wide).square() for part in parts]
    return torch.stack(energies).sum(0)
