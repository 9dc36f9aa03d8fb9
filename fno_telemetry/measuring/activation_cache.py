"""Caches activations and their states for live tensors, so that no tensor is measured twice.

A container often returns the same tensor as its last child, and a block gets what the last block returned.
"""

import math
import weakref
from collections import OrderedDict
from collections.abc import Hashable
from functools import cached_property
from typing import Any

import torch

from fno_telemetry.isolation.function_transforms import unwrap
from fno_telemetry.statistics.activation import Activation, Layout
from fno_telemetry.statistics.contract import Statistic
from fno_telemetry.statistics.shares import WHOLE, Shares, choose_shares
from fno_telemetry.tracing.tensor_memory import share_memory

_MOST = 4  # each may hold a converted copy of its tensor


class CachedActivation:
    """A tensor in a layout, with its activation and the states that statistics measured, once asked for."""

    def __init__(
        self, tensor: torch.Tensor, layout: Layout, shares: Shares = WHOLE, is_only_batch: bool = False
    ) -> None:
        self.layout = layout
        self._shares = shares
        self._is_only_batch = is_only_batch
        self.is_complex = tensor.is_complex()
        self._tensor = unwrap(tensor).detach()
        self._states: dict[str, Any] = {}  # by the statistic's name

    @cached_property
    def activation(self) -> Activation:
        """The tensor prepared for statistics."""
        return Activation(self._tensor, self.layout, self._shares, self._is_only_batch)

    def state_of(self, statistic: Statistic) -> Any:
        """Return the statistic's state of the activation, measured at most once."""
        if statistic.name not in self._states:
            self._states[statistic.name] = statistic.measure(self.activation)
        return self._states[statistic.name]


class ActivationCache:
    """Returns the same activation for a tensor object as long as it is unchanged; keeps no tensor alive.

    `first_size` is the number of samples of the first batch, if that runs in another process.
    """

    def __init__(
        self, is_light: bool = False, is_only_batch: bool = False, first_size: int | None = None
    ) -> None:
        self._is_light = is_light
        self._first_size = first_size
        self._is_only_batch = is_only_batch
        self._shares: dict[Hashable, Shares] = {}  # by place
        self._entries: OrderedDict[int, tuple[weakref.ref[torch.Tensor], int, CachedActivation]] = (
            OrderedDict()
        )

    def activation(self, tensor: torch.Tensor, layout: Layout, place: Hashable = None) -> Activation:
        """Return the activation of this tensor in this layout; `place` as for `cached`."""
        return self.cached(tensor, layout, place).activation

    def cached(self, tensor: torch.Tensor, layout: Layout, place: Hashable = None) -> CachedActivation:
        """Return the activation of this tensor in this layout, with the states measured so far.

        With a light budget, shares are those of the first tensor at this place.
        """
        if tensor.is_inference():
            # Without a version counter, later writes cannot be detected.
            return self._make(tensor, layout, place)
        entry = self._entries.get(id(tensor))
        if entry is not None:
            alive, version, cached = entry
            if alive() is tensor and version == tensor._version and cached.layout == layout:
                return cached
        cached = self._make(tensor, layout, place)
        self._remember(tensor, cached)
        return cached

    def _make(self, tensor: torch.Tensor, layout: Layout, place: Hashable) -> CachedActivation:
        return CachedActivation(tensor, layout, self._find_shares(tensor, layout, place), self._is_only_batch)

    def _find_shares(self, tensor: torch.Tensor, layout: Layout, place: Hashable) -> Shares:
        if not self._is_light:
            return WHOLE
        if place not in self._shares:
            points = math.prod(tensor.shape[axis] for axis in layout.space)
            elements = tensor.numel()
            if self._first_size is not None and layout.sample is not None:
                elements = elements // max(tensor.shape[layout.sample], 1) * self._first_size
            self._shares[place] = choose_shares(elements, elements // max(points, 1))
        return self._shares[place]

    def forget(self, target: torch.Tensor) -> None:
        """Forget all tensors in the memory of `target`: writes through `.data` change no version counter."""
        for key, (alive, _, _) in list(self._entries.items()):
            tensor = alive()
            if tensor is None or share_memory(tensor, target):
                self._entries.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()

    def _remember(self, tensor: torch.Tensor, cached: CachedActivation) -> None:
        key, entries = id(tensor), self._entries

        def forget(gone: "weakref.ref[torch.Tensor]") -> None:
            entry = entries.get(key)
            # By now the address may belong to another tensor.
            if entry is not None and entry[0] is gone:
                del entries[key]

        entries[key] = (weakref.ref(tensor, forget), tensor._version, cached)
        entries.move_to_end(key)
        while len(entries) > _MOST:
            entries.popitem(last=False)
