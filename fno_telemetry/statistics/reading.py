"""Whether a tensor's values can be read at no cost, and the memory of such a tensor as an array."""

import numpy as np
import torch

from fno_telemetry.isolation.function_transforms import is_wrapped
from fno_telemetry.statistics.kernels import Array

_TYPES = {
    torch.float32: np.dtype(np.float32).str,
    torch.float64: np.dtype(np.float64).str,
    torch.complex64: np.dtype(np.complex64).str,
    torch.complex128: np.dtype(np.complex128).str,
}


def is_free(tensor: torch.Tensor) -> bool:
    """Return whether the tensor is in host memory, where reading a value waits for nothing."""
    return tensor.device.type == "cpu" and not is_wrapped(tensor)


class _Memory:
    """Lends the memory of a contiguous tensor to NumPy, and keeps the tensor as long as an array uses it.

    `Tensor.numpy` would forbid for ever to resize that memory, which sharded models do with their tensors.
    """

    def __init__(self, tensor: torch.Tensor, address: int) -> None:
        self._tensor = tensor
        self.__array_interface__ = {
            "data": (address, False),
            "shape": tuple(tensor.shape),
            "typestr": _TYPES[tensor.dtype],
            "version": 3,
        }


def as_array(tensor: torch.Tensor) -> Array | None:
    """Return the memory of a contiguous tensor, not to be written to; None if NumPy cannot read it."""
    if not is_free(tensor) or tensor.dtype not in _TYPES:
        return None
    if tensor.numel() == 0:
        return np.empty(tuple(tensor.shape), _TYPES[tensor.dtype])
    try:
        address = tensor.data_ptr()
    except RuntimeError:
        return None
    # A tensor made of others has no memory of its own.
    return np.asarray(_Memory(tensor, address)) if address and tensor.is_contiguous() else None


def read(tensor: torch.Tensor) -> Array:
    """Return the same; raise TypeError if NumPy cannot read it."""
    array = as_array(tensor)
    if array is None:
        raise TypeError(f"NumPy cannot read this tensor of {tensor.dtype} on {tensor.device}")
    return array
