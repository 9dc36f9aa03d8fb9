"""Restores a model and the random generators after any code that runs in between."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from fno_telemetry.isolation.attributes import Attribute, Attributes, defined_in
from fno_telemetry.isolation.random_states import RandomStates, list_devices
from fno_telemetry.isolation.tensor_values import CopyBudget, TensorValue

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
# Sharding exchanges parameters and attributes while it gathers them, and puts them back by itself.
_SHARDING = ("torch.distributed.fsdp", "deepspeed")

MOST_PARAMETER_BYTES = 2**28
"""How many bytes of parameters are copied; beyond, a write is told if torch counts it, and not put back."""


class Preserved:
    """The state of a model when this is made: buffers, attributes and, with `parameters`, those as well."""

    def __init__(self, model: nn.Module, parameters: bool = True) -> None:
        self.left: list[Attribute] = []  # what could not be put back
        self._model = model
        self._sharded = any(defined_in(module, _SHARDING) for module in model.modules())
        self._parameters: list[tuple[Attribute, TensorValue]] = []
        with torch._C.DisableTorchFunction():
            if parameters and not self._sharded:
                self._keep_parameters()
            self._keep_state()

    def has_new_parts(self, replaced: bool) -> bool:
        """Whether there are new submodules or parameters; with `replaced`, also in place of others."""
        return self._attributes is not None and self._attributes.has_new_parts(replaced)

    def put_back_parameters(self) -> None:
        """Put back the parameters alone, without their gradients, for another forward."""
        with torch._C.DisableTorchFunction():
            self._put_back_parameters()
            self._hide_gradients()

    def accept(self) -> list[Attribute]:
        """Leave buffers and attributes as they are now; return the attributes that had changed."""
        with torch._C.DisableTorchFunction():
            changed = [] if self._attributes is None else self._attributes.find_changed()
            self._keep_state()
        return changed

    def put_back(self) -> None:
        """Put back everything, and note in `left` what could not be."""
        with torch._C.DisableTorchFunction():
            self._put_back()

    def _put_back(self) -> None:
        if self._attributes is not None:
            self.left += self._attributes.put_back()
        for module, name, buffer in self._buffers:
            module._buffers[name] = buffer
        for value in self._values:
            if value.changed():
                value.put_back()
        self._put_back_parameters()

    def _put_back_parameters(self) -> None:
        for parameter, value in self._parameters:
            if value.changed():
                value.put_back()
                if value.changed():
                    self.left.append(parameter)

    def _keep_state(self) -> None:
        modules = list(self._model.modules())
        self._attributes = None if self._sharded else Attributes(self._model)
        self._buffers = [(module, *entry) for module in modules for entry in module._buffers.items()]
        self._values = [TensorValue(buffer) for buffer in self._model.buffers()]

    def _keep_parameters(self) -> None:
        budget = CopyBudget(MOST_PARAMETER_BYTES)
        owners = {
            id(parameter): Attribute(module, name, "Parameter")
            for module in self._model.modules()
            for name, parameter in module._parameters.items()
        }
        for parameter in self._model.parameters():
            self._parameters.append((owners[id(parameter)], TensorValue(parameter, budget)))
        self._hide_gradients()

    def _hide_gradients(self) -> None:
        """Take the gradients off the parameters: a forward that calls backward() adds to them in place."""
        for _, value in self._parameters:
            if value.tensor.is_leaf and value.tensor.grad is not None:
                value.tensor.grad = None


@contextmanager
def preserve(model: nn.Module, parameters: bool = True) -> Iterator[Preserved]:
    """Restore a model and all random states when the block ends, bit by bit.

    Restored are parameters with their gradients (with `parameters`), buffers, training flags and plain
    attributes of modules.
    Within the block, other threads wait before such a block of their own, and parallel wrappers only call
    the module that they wrap.
    """
    with _turn, _run_alone(model), _restore(model, parameters) as preserved:
        yield preserved


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
def _restore(model: nn.Module, parameters: bool) -> Iterator[Preserved]:
    # Frozen TorchScript has no training flag.
    training = [(module, getattr(module, "training", None)) for module in model.modules()]
    states = RandomStates(list_devices(model.parameters()))
    preserved = Preserved(model, parameters)
    try:
        yield preserved
    finally:
        states.put_back()
        preserved.put_back()
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
