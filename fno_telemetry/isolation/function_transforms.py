"""Recognises tensors inside `vmap`, `grad` and `jvp` of `torch.func`, which wrap the tensors of a forward."""

from contextlib import AbstractContextManager, nullcontext

import torch

_functorch = torch._C._functorch
_NOTHING = nullcontext()


def outside_transforms() -> AbstractContextManager[object]:
    """Return a context in which no function transform runs, so that functions make plain tensors."""
    if _functorch.peek_interpreter_stack() is None:
        return _NOTHING
    from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

    return temporarily_clear_interpreter_stack()


def is_wrapped(tensor: torch.Tensor) -> bool:
    """Whether the tensor is a wrapper around the tensor that owns the memory."""
    return _functorch.is_functorch_wrapped_tensor(tensor)


def unwrap(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor that owns the memory, inside all wrappers."""
    while is_wrapped(tensor):
        tensor = _functorch.get_unwrapped(tensor)
    return tensor


def is_batched(tensor: torch.Tensor) -> bool:
    """Whether vmap hides an axis of the tensor, also inside the wrappers of grad and jvp."""
    while is_wrapped(tensor):
        if _functorch.is_batchedtensor(tensor):
            return True
        tensor = _functorch.get_unwrapped(tensor)
    return False
