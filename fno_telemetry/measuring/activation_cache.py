"""Activations of tensors that are still alive: what was measured of one once is not measured again.

A container often returns the very tensor of its last child, and a block is fed what the last one returned.
"""

import weakref
from collections import OrderedDict

import torch
from fno_telemetry.statistics.activation import Activation, Layout
from fno_telemetry.tracing.branch_sums import share_memory

_MOST = 4  # a widened or rearranged copy may hang on each


class ActivationCache:
    """Hands out one Activation per tensor object as long as the tensor lives unchanged; keeps none alive."""

    def __init__(self) -> None:
        self._entries: OrderedDict[int, tuple[weakref.ref[torch.Tensor], int, Activation]] = OrderedDict()

    def activation(self, tensor: torch.Tensor, layout: Layout) -> Activation:
        """Return the activation of this tensor in this layout."""
        if tensor.is_inference():
            # Without a version nothing tells whether it was written to since.
            return Activation(tensor, layout)
        entry = self._entries.get(id(tensor))
        if entry is not None:
            alive, version, activation = entry
            if alive() is tensor and version == tensor._version and activation.layout == layout:
                return activation
        activation = Activation(tensor, layout)
        self._remember(tensor, activation)
        return activation

    def forget(self, target: torch.Tensor) -> None:
        """Forget what lies in the memory of `target`: a write through `.data` changes no version."""
        for key, (alive, _, _) in list(self._entries.items()):
            tensor = alive()
            if tensor is None or share_memory(tensor, target):
                self._entries.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()

    def _remember(self, tensor: torch.Tensor, activation: Activation) -> None:
        key, entries = id(tensor), self._entries

        def forget(gone: "weakref.ref[torch.Tensor]") -> None:
            entry = entries.get(key)
            # The address may belong to another tensor by now.
            if entry is not None and entry[0] is gone:
                del entries[key]

        entries[key] = (weakref.ref(tensor, forget), tensor._version, activation)
        entries.move_to_end(key)
        while len(entries) > _MOST:
            entries.popitem(last=False)
