"""Which tensors show the same memory."""

import torch

from fno_telemetry.isolation.function_transforms import is_wrapped


def share_memory(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether both tensors are views of the same storage, even of different parts of it."""
    if one is other or not (_has_storage(one) and _has_storage(other)):
        return one is other
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def is_whole_view(tensor: torch.Tensor, source: torch.Tensor) -> bool:
    """Whether a tensor shows all elements of another one, in the same places."""
    if not (_has_storage(tensor) and _has_storage(source)) or tensor.is_nested or source.is_nested:
        return False
    if tensor.shape != source.shape:
        return False
    same_way = (tensor.dtype, tensor.is_conj(), tensor.is_neg()) == (
        source.dtype,
        source.is_conj(),
        source.is_neg(),
    )
    return same_way and tensor.stride() == source.stride() and tensor.data_ptr() == source.data_ptr() != 0


def _has_storage(tensor: torch.Tensor) -> bool:
    return tensor.layout is torch.strided and not is_wrapped(tensor)
