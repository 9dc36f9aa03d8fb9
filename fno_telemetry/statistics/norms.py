"""The Frobenius norm of a tensor, whose wide copies are as small as one block of it."""

import math

import numpy as np
import torch

from fno_telemetry.statistics import reading
from fno_telemetry.statistics.memory_blocks import memory_blocks

_SUMMED = 1 << 14  # elements of which a float64 copy fits in the cache
_FEW = 64


def frobenius_norm(tensor: torch.Tensor) -> torch.Tensor:
    """Return the root of the sum of |x|^2 as a tensor on the device, for values of any magnitude."""
    parts = real_parts(tensor.detach())
    if (norm := _norm_on_host(parts)) is not None:
        return torch.from_numpy(np.array(norm))
    wide = torch.float32 if parts.device.type == "mps" else torch.float64
    if parts.numel() == 0:
        return torch.zeros((), dtype=wide, device=parts.device)
    norms = [_norm_of_few(part, wide) for part in memory_blocks(parts)]
    return norms[0] if len(norms) == 1 else _norm_of_few(torch.stack(norms), wide)


def real_parts(tensor: torch.Tensor) -> torch.Tensor:
    """Return a complex tensor or its conjugate as a view of real numbers, (..., 2); a real one as it is."""
    if not tensor.is_complex():
        return tensor
    # Torch would copy a conjugated tensor. Its values before conjugation have the same norm.
    return torch.view_as_real(tensor.conj() if tensor.is_conj() else tensor)


def _norm_on_host(parts: torch.Tensor) -> float | None:
    """Return the norm of contiguous float32 values, or a few of float64, in host memory; None for others."""
    is_few = parts.dtype == torch.float64 and parts.numel() <= _FEW
    if type(parts) is not torch.Tensor or not (parts.dtype == torch.float32 or is_few):
        return None
    array = reading.as_array(parts)
    if array is None:
        return None
    if is_few:
        return math.hypot(*array.reshape(-1).tolist())
    flat, energy = array.reshape(-1), 0.0
    # One buffer for all blocks: float64 holds the squares of all values of float32.
    buffer = np.empty(min(flat.size, _SUMMED))
    for at in range(0, flat.size, _SUMMED):
        block = flat[at : at + _SUMMED]
        wide = buffer[: block.size]
        wide[:] = block
        energy += float(wide.dot(wide))
    return math.sqrt(energy)


def _norm_of_few(tensor: torch.Tensor, wide: torch.dtype) -> torch.Tensor:
    """Return the norm from copies of the tensor in the wide type."""
    if tensor.dtype != wide:
        # Float64 holds the squares of all values of narrower types.
        norm: torch.Tensor = torch.linalg.vector_norm(tensor, dtype=wide)
        return norm
    largest = torch.linalg.vector_norm(tensor, math.inf)
    unit = torch.where((largest > 0) & torch.isfinite(largest), largest, torch.ones_like(largest))
    scaled: torch.Tensor = torch.linalg.vector_norm(tensor / unit) * unit
    return scaled
