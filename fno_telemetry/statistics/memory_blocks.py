"""A tensor in blocks, so that what is computed from each takes little memory and fits in the cache."""

from collections.abc import Iterator

import torch

from fno_telemetry.statistics import reading

HOST_BLOCK, DEVICE_BLOCK = 1 << 16, 1 << 22
"""Elements of a block in host memory, and on a device, where each call of a function costs more."""


def memory_blocks(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield views that cover a tensor of any layout, at least one: the tensor itself if it is small."""
    if type(tensor) is not torch.Tensor:
        # One that is spread over processes would be gathered to be cut.
        yield tensor
        return
    yield from _split(tensor, block_size(tensor))


def block_size(tensor: torch.Tensor) -> int:
    """Return the elements of a block of this tensor."""
    return HOST_BLOCK if reading.is_free(tensor) else DEVICE_BLOCK


def _split(tensor: torch.Tensor, elements: int) -> Iterator[torch.Tensor]:
    """Yield views with at most this many elements.

    They are cut along the axis of the longest stride, so that each is as close together as can be.
    """
    if tensor.numel() <= elements:
        yield tensor
        return
    axis = max(range(tensor.ndim), key=lambda axis: (tensor.shape[axis] > 1, tensor.stride(axis)))
    thickness = elements * tensor.shape[axis] // tensor.numel()
    for part in torch.split(tensor, max(thickness, 1), axis):
        yield from _split(part, elements)
