"""Restores a model and the random generators after any code that runs in between."""

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

# Random states are global, and models may share modules: captures take turns.
_turn = threading.RLock()


def _take_turns_anew() -> None:
    """Let a forked process capture: the thread that holds the turn may not exist in it."""
    global _turn
    _turn = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_take_turns_anew)

# Flags for a rank that runs alone: no broadcast before a forward and no reduction after a backward, which a
# static graph requests in its first backward.
_ALONE = {
    "require_forward_param_sync": False,
    "require_backward_grad_sync": False,
    "_static_graph_delay_allreduce_enqueued": True,
}


@contextmanager
def preserve(model: nn.Module) -> Iterator[None]:
    """Restore the training flag of every module, every buffer and all random states when the block ends.

    Within the block, other threads wait before such a block of their own, and parallel wrappers only call
    the module that they wrap.
    """
    with _turn, _run_alone(model), _restore(model):
        yield


@contextmanager
def _run_alone(model: nn.Module) -> Iterator[None]:
    """Run wrapped modules in this process on this device only, so that one rank can capture alone."""
    # Hooks do not fire on the copies that DataParallel distributes over devices.
    data_parallel = [(m, m.device_ids) for m in model.modules() if isinstance(m, nn.DataParallel)]
    # A forward clears the flag for the broadcast before the next training step, so the flag is restored.
    flags = [
        (m, name, vars(m)[name])
        for m in model.modules()
        if isinstance(m, DistributedDataParallel)
        for name in _ALONE
        if name in vars(m)
    ]
    try:
        for parallel, _ in data_parallel:
            parallel.device_ids = []
        for distributed, name, _ in flags:
            setattr(distributed, name, _ALONE[name])
        yield
    finally:
        for parallel, devices in data_parallel:
            parallel.device_ids = devices
        for distributed, name, flag in flags:
            setattr(distributed, name, flag)


@contextmanager
def _restore(model: nn.Module) -> Iterator[None]:
    # Frozen TorchScript has no training flag.
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
        existing = {id(module) for module, _ in training}
        for created in model.modules():
            if id(created) not in existing:
                # The first forward created it; without a capture it would be in training mode.
                created.training = True
        for module, name, own in buffers:
            module._buffers[name] = own
        for buffer in leaves:
            # A forward with gradients that wrote into the buffer attached it to a graph.
            if not buffer.is_leaf:
                buffer.detach_()
        for buffer, before in values:
            # Writing an unchanged buffer would invalidate a graph that is still to be differentiated.
            if not _identical(buffer, before):
                with torch.no_grad():
                    if buffer.shape != before.shape:
                        buffer.resize_(before.shape)
                    buffer.copy_(before)


def _identical(buffer: torch.Tensor, before: torch.Tensor) -> bool:
    """Whether no bit differs; a version counter misses writes through `.data` and in inference mode."""
    if buffer.layout is not torch.strided or buffer.is_quantized or buffer.shape != before.shape:
        return False
    return torch.equal(_bytes(buffer), _bytes(before))


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().view(-1).view(torch.uint8)
