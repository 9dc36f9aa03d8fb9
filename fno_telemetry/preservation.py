"""Leaves a model and the random generators as they were, whatever runs in between."""

import random
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from torch import nn


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Put back every module's training flag, every buffer and all random states when the block ends."""
    training = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer) for module in model.modules() for name, buffer in module._buffers.items()
    ]
    values = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        for module, flag in training:
            module.training = flag
        for module, name, own in buffers:
            module._buffers[name] = own
        for buffer, before in values:
            # Writing an unchanged buffer would disturb a graph that somebody has yet to differentiate.
            if not _identical(buffer, before):
                with torch.no_grad():
                    buffer.copy_(before)


def eager() -> AbstractContextManager[object]:
    """Run what is compiled as it was written: hooks added after compilation fire there or not at all."""
    # Whoever compiled something has imported the compiler; for all others it would cost a second.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def _identical(buffer: torch.Tensor, before: torch.Tensor) -> bool:
    """Whether not a bit differs; a version counter misses writes through `.data` and in inference mode."""
    if buffer.layout is not torch.strided or buffer.is_quantized:
        return False
    return torch.equal(_bytes(buffer), _bytes(before))


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().view(-1).view(torch.uint8)
