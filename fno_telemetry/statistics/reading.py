"""Whether a tensor's values can be read at no cost, and the memory of such a tensor as an array."""

import numpy as np
import torch

from fno_telemetry.isolation.function_transforms import is_wrapped
from fno_telemetry.statistics.kernels import Array, NarrowValues, Values

_TYPES = {
    torch.float32: np.dtype(np.float32).str,
    torch.float64: np.dtype(np.float64).str,
    torch.complex64: np.dtype(np.complex64).str,
    torch.complex128: np.dtype(np.complex128).str,
}
_UNSIGNED = {1: np.dtype(np.uint8).str, 2: np.dtype(np.uint16).str}


def is_free(tensor: torch.Tensor) -> bool:
    """Return whether the tensor is in host memory, where reading a value waits for nothing."""
    return tensor.device.type == "cpu" and not is_wrapped(tensor)


class _Memory:
    """Lends the memory of a contiguous tensor to NumPy, and keeps the tensor as long as an array uses it.

    `Tensor.numpy` would forbid for ever to resize that memory, which sharded models do with their tensors.
    """

    def __init__(self, tensor: torch.Tensor, typestr: str) -> None:
        self._tensor = tensor
        self.__array_interface__ = {
            "data": (tensor.data_ptr(), False),
            "shape": tuple(tensor.shape),
            "typestr": typestr,
            "version": 3,
        }


def as_array(tensor: torch.Tensor) -> Array | None:
    """Return the memory of a contiguous tensor, not to be written to; None if NumPy cannot read it."""
    if tensor.dtype not in _TYPES or not is_readable(tensor):
        return None
    if tensor.numel() == 0:
        return np.empty(tuple(tensor.shape), _TYPES[tensor.dtype])
    return np.asarray(_Memory(tensor, _TYPES[tensor.dtype]))


def is_readable(tensor: torch.Tensor) -> bool:
    """Return whether the values lie in host memory one after the other, or there are none."""
    if not is_free(tensor):
        return False
    if tensor.numel() == 0:
        return True
    try:
        # A tensor made of others has no memory of its own.
        return bool(tensor.data_ptr()) and tensor.is_contiguous()
    except RuntimeError:
        return False


def read(tensor: torch.Tensor) -> Array:
    """Return the same; raise TypeError if NumPy cannot read it."""
    array = as_array(tensor)
    if array is None:
        raise TypeError(f"NumPy cannot read this tensor of {tensor.dtype} on {tensor.device}")
    return array


def read_values(tensor: torch.Tensor) -> Values:
    """Return the same, also of a readable tensor of half precision, which is widened where it is used."""
    if tensor.dtype.itemsize >= 4:
        return read(tensor)
    return NarrowValues(tensor, np.asarray(_Memory(tensor, _UNSIGNED[tensor.dtype.itemsize])))
