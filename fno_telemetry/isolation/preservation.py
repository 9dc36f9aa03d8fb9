"""Leaves a model and the random generators as they were, whatever runs in between."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

# Random states, and the flags and buffers of shared modules, are the process's: captures take turns.
_turn = threading.RLock()

# What a rank that runs alone has to hold back: the broadcast before a forward, and the reduction after a
# backward, for which a static graph asks in its first one.
_ALONE = {
    "require_forward_param_sync": False,
    "require_backward_grad_sync": False,
    "_static_graph_delay_allreduce_enqueued": True,
}


@contextmanager
def preserve(model: nn.Module) -> Iterator[None]:
    """Put back every module's training flag, every buffer and all random states when the block ends.

    Meanwhile other threads wait before such a block of theirs, and parallel wrappers only hand on.
    """
    with _turn, _undivided(model), _put_back(model):
        yield


@contextmanager
def _undivided(model: nn.Module) -> Iterator[None]:
    """Run what is wrapped on this process and device alone: one rank may capture without the others."""
    # Hooks do not fire on the copies that DataParallel spreads over devices.
    spread = [(m, m.device_ids) for m in model.modules() if isinstance(m, nn.DataParallel)]
    # What is to be broadcast before the next training step still is: the flag tells, and a forward clears it.
    flags = [
        (m, name, vars(m)[name])
        for m in model.modules()
        if isinstance(m, DistributedDataParallel)
        for name in _ALONE
        if name in vars(m)
    ]
    try:
        for parallel, _ in spread:
            parallel.device_ids = []
        for distributed, name, _ in flags:
            setattr(distributed, name, _ALONE[name])
        yield
    finally:
        for parallel, devices in spread:
            parallel.device_ids = devices
        for distributed, name, flag in flags:
            setattr(distributed, name, flag)


@contextmanager
def _put_back(model: nn.Module) -> Iterator[None]:
    # Frozen TorchScript has no such flag.
    training = [(module, getattr(module, "training", None)) for module in model.modules()]
    buffers = [
        (module, name, buffer) for module in model.modules() for name, buffer in module._buffers.items()
    ]
    values = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    leaves = [buffer for buffer in model.buffers() if buffer.is_leaf]
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
            if flag is not None:
                module.training = flag
            else:
                vars(module).pop("training", None)
        there = {id(module) for module, _ in training}
        for made in model.modules():
            if id(made) not in there:
                # By the first forward; without a capture around it, it would be in this mode.
                made.training = True
        for module, name, own in buffers:
            module._buffers[name] = own
        for buffer in leaves:
            # A forward with gradients that writes into it ties it to a graph.
            if not buffer.is_leaf:
                buffer.detach_()
        for buffer, before in values:
            # Writing an unchanged buffer would disturb a graph that somebody has yet to differentiate.
            if not _identical(buffer, before):
                with torch.no_grad():
                    if buffer.shape != before.shape:
                        buffer.resize_(before.shape)
                    buffer.copy_(before)


def _identical(buffer: torch.Tensor, before: torch.Tensor) -> bool:
    """Whether not a bit differs; a version counter misses writes through `.data` and in inference mode."""
    if buffer.layout is not torch.strided or buffer.is_quantized or buffer.shape != before.shape:
        return False
    return torch.equal(_bytes(buffer), _bytes(before))


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().view(-1).view(torch.uint8)
