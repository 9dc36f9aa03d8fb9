"""What a network was before weights were loaded into it, to be put back when that fails."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_REGISTERED = ("_parameters", "_buffers", "_modules")


@dataclass(frozen=True, eq=False)
class NetworkBackup:
    """Every tensor of a network with a copy of its values, and the attributes of its modules."""

    tensors: tuple[tuple[Tensor, Tensor, Tensor], ...]  # the tensor, its data, a copy of these
    attributes: tuple[tuple[nn.Module, dict[str, Any]], ...]
    registered: tuple[tuple[dict[str, Any], dict[str, Any]], ...]

    @classmethod
    def of(cls, model: nn.Module) -> "NetworkBackup":
        """Return the backup of a network as it is now; its tensors are copied."""
        modules = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
        attributes = [(module, dict(vars(module))) for module in modules]
        registered = [(held, dict(held)) for module in modules for held in _registered(module)]
        tensors = [(tensor, tensor.data, tensor.detach().clone()) for tensor in _tensors(model)]
        return cls(tuple(tensors), tuple(attributes), tuple(registered))

    def restore(self) -> None:
        """Make the network what it was, whatever its own code for loading has done to it."""
        for module, before in self.attributes:
            own = vars(module)
            for name in own.keys() - before.keys():
                del own[name]
            own.update(before)
        for held, entries in self.registered:
            held.clear()
            held.update(entries)
        with torch.no_grad():
            for tensor, data, values in self.tensors:
                if tensor.is_meta or _is_equal(tensor, values):
                    continue
                if data.shape != values.shape:
                    data.resize_(values.shape)
                data.copy_(values)
                tensor.data = data


def _registered(module: nn.Module) -> Iterator[dict[str, Any]]:
    for name in _REGISTERED:
        held = vars(module).get(name)
        if isinstance(held, dict):
            yield held


def _is_equal(tensor: Tensor, values: Tensor) -> bool:
    alike = (tensor.shape, tensor.dtype, tensor.layout) == (values.shape, values.dtype, torch.strided)
    return alike and torch.equal(tensor, values)


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    """Yield parameters and buffers, each once."""
    yield from model.parameters()
    yield from model.buffers()
