"""Recognises tensors inside `vmap`, `grad` and `jvp` of `torch.func`, which wrap the tensors of a forward."""

import contextlib
from collections.abc import Iterator

import torch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

_functorch = torch._C._functorch


def is_wrapped(tensor: torch.Tensor) -> bool:
    """Whether the tensor is a wrapper around the tensor that owns the memory."""
    return _functorch.is_functorch_wrapped_tensor(tensor)


def is_batched(tensor: torch.Tensor) -> bool:
    """Whether vmap hides an axis of the tensor, also inside the wrappers of grad and jvp."""
    while is_wrapped(tensor):
        if _functorch.is_batchedtensor(tensor):
            return True
        tensor = _functorch.get_unwrapped(tensor)
    return False


def unwrap(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor inside the wrappers of grad and jvp."""
    while is_wrapped(tensor):
        tensor = _functorch.get_unwrapped(tensor)
    return tensor


@contextlib.contextmanager
def suspended() -> Iterator[None]:
    """Suspend all transforms, which otherwise wrap the result of every function.

    Inside, only tensors that no transform wraps can be used.
    """
    if _functorch.peek_interpreter_stack() is None:
        yield
        return
    with temporarily_clear_interpreter_stack():
        yield
