"""The shapes of tensors, some of which have none."""

import torch

_PLAIN = (torch.Tensor, torch.nn.Parameter)
"""Tensors whose sizes are numbers, which is not looked at one by one."""


def read_shape(tensor: torch.Tensor) -> tuple[int, ...] | None:
    """Return the shape of a tensor; None for a nested one, and for any other that has no shape in numbers."""
    if type(tensor) in _PLAIN and not tensor.is_nested:
        return tuple(tensor.shape)
    try:
        shape = () if tensor.is_nested else tuple(tensor.shape)
    except Exception:  # noqa: BLE001 - a class of tensors may refuse anything
        return None
    return None if tensor.is_nested or not all(isinstance(size, int) for size in shape) else shape
