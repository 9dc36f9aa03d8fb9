"""The states of the random generators of Python, NumPy and torch."""

import random
from collections.abc import Iterable

import numpy as np
import torch


class RandomStates:
    """The states when this is made, also of the generators of these CUDA devices."""

    def __init__(self, devices: Iterable[int] = ()) -> None:
        self._python = random.getstate()
        self._numpy = np.random.get_state()
        self._torch = torch.get_rng_state()
        self._devices = [(device, torch.cuda.get_rng_state(device)) for device in devices]

    def put_back(self) -> None:
        """Put back all states."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.set_rng_state(self._torch)
        for device, state in self._devices:
            torch.cuda.set_rng_state(state, device)


def list_devices(tensors: Iterable[torch.Tensor]) -> list[int]:
    """Return the indices of the CUDA devices of these tensors."""
    return sorted({tensor.device.index or 0 for tensor in tensors if tensor.device.type == "cuda"})
