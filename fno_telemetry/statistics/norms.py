"""The Frobenius norm of a tensor, whose wide copies are as small as one block of it."""

import math
from collections.abc import Iterator

import torch

from fno_telemetry.statistics import reading

_HOST_BLOCK, _DEVICE_BLOCK = 1 << 16, 1 << 22


def frobenius_norm(tensor: torch.Tensor) -> torch.Tensor:
    """Return the root of the sum of |x|^2 as a tensor on the device, for values of any magnitude."""
    parts = _real_parts(tensor.detach())
    wide = torch.float32 if parts.device.type == "mps" else torch.float64
    if parts.numel() == 0:
        return torch.zeros((), dtype=wide, device=parts.device)
    norms = [_norm_of_few(part, wide) for part in _split(parts, _block_elements(parts))]
    return norms[0] if len(norms) == 1 else _norm_of_few(torch.stack(norms), wide)


def _real_parts(tensor: torch.Tensor) -> torch.Tensor:
    if not tensor.is_complex():
        return tensor
    # A tensor that stands for its conjugate would be copied; the norm is that of what it holds.
    return torch.view_as_real(tensor.conj() if tensor.is_conj() else tensor)


def _block_elements(tensor: torch.Tensor) -> int:
    if type(tensor) is not torch.Tensor:
        # One that is spread over processes would be gathered to be cut.
        return tensor.numel()
    return _HOST_BLOCK if reading.is_free(tensor) else _DEVICE_BLOCK


def _split(tensor: torch.Tensor, elements: int) -> Iterator[torch.Tensor]:
    """Yield views that cover the tensor, each with at most this many elements.

    They are cut along the axis of the longest stride, so that each is as close together as can be.
    """
    if tensor.numel() <= elements:
        yield tensor
        return
    axis = max(range(tensor.ndim), key=lambda axis: (tensor.shape[axis] > 1, tensor.stride(axis)))
    thickness = elements * tensor.shape[axis] // tensor.numel()
    for part in torch.split(tensor, max(thickness, 1), axis):
        yield from _split(part, elements)


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
