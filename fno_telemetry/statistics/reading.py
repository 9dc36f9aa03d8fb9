"""Whether a tensor's values can be read at no cost; reading one on another device has to wait for it."""

import torch

from fno_telemetry.statistics.kernels import Array


def is_free(tensor: torch.Tensor) -> bool:
    """Return whether the tensor is in host memory."""
    return tensor.device.type == "cpu"


def as_array(tensor: torch.Tensor) -> Array | None:
    """Return the tensor's own memory as an array; None if it is elsewhere, or cannot be read by NumPy."""
    if not is_free(tensor):
        return None
    try:
        array: Array = tensor.numpy()
    except (RuntimeError, TypeError):
        # bfloat16, or a tensor inside a function transform of torch.
        return None
    return array
