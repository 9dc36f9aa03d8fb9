"""What vmap, grad and jvp of `torch.func` put around the tensors of a forward that they run."""

import torch

_functorch = torch._C._functorch


def is_wrapped(tensor: torch.Tensor) -> bool:
    """Whether the tensor only stands around the one that has the memory."""
    return _functorch.is_functorch_wrapped_tensor(tensor)


def is_batched(tensor: torch.Tensor) -> bool:
    """Whether vmap hides an axis of the tensor, be it underneath what grad or jvp put around it."""
    while is_wrapped(tensor):
        if _functorch.is_batchedtensor(tensor):
            return True
        tensor = _functorch.get_unwrapped(tensor)
    return False
