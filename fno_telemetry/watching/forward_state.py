"""What a forward depends on besides its parameters, kept so that the very same forward can be run again."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from fno_telemetry.isolation.random_states import RandomStates, list_devices
from fno_telemetry.isolation.tensor_values import count_writes
from fno_telemetry.tracing.nested_tensors import tensors_in


class ForwardState:
    """The random states and the buffers when this is made, just before a forward, and its arguments."""

    def __init__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args, self.kwargs = args, kwargs
        self._model = model
        self._random = RandomStates(list_devices(model.parameters()))
        self._copies = {id(buffer): buffer.detach().clone() for buffer in model.buffers()}
        self._writes = self._count_writes()

    @contextmanager
    def put_back(self) -> Iterator[None]:
        """Run the block with the random states and with copies of the buffers as they were.

        The buffers themselves are not written: the backward that is still to come may need them as they are.
        """
        now = RandomStates(list_devices(self._model.parameters()))
        tables = [module._buffers for module in self._model.modules()]
        entries = [(table, name, buffer) for table in tables for name, buffer in table.items()]
        try:
            for table, name, buffer in entries:
                table[name] = self._copies.get(id(buffer), buffer)
            self._random.put_back()
            yield
        finally:
            for table, name, buffer in entries:
                table[name] = buffer
            now.put_back()

    def is_input_unchanged(self) -> bool:
        """Return whether the forward has not written into its arguments."""
        return self._count_writes() == self._writes

    def _count_writes(self) -> list[int]:
        return [count_writes(tensor) for tensor in tensors_in((self.args, self.kwargs))]


def is_finite(value: object) -> bool:
    """Return whether all numbers of the floating point tensors in host memory are finite; others pass.

    On another device the answer would have to be waited for.
    """
    for tensor in tensors_in(value):
        measurable = tensor.is_floating_point() or tensor.is_complex()
        if measurable and tensor.device.type == "cpu" and tensor.layout is torch.strided:
            parts = torch.view_as_real(tensor.detach().resolve_conj()) if tensor.is_complex() else tensor
            # A sum is finite only if all are; one that overflows is looked at again.
            if not torch.isfinite(parts.detach().sum()) and not torch.isfinite(parts).all():
                return False
    return True
