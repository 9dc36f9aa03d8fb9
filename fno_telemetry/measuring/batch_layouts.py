"""The layouts of the tensors of one batch."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from fno_telemetry.mapping.layouts import AxesGuide, Place
from fno_telemetry.statistics.activation import Layout


class BatchLayouts:
    """Finds the layout of a tensor by its place; `pads` are the amounts of each padding so far."""

    def __init__(self, axes: AxesGuide) -> None:
        self.batch_size: int | None = None
        self.pads: list[Sequence[int]] = []
        self._axes = axes
        self._found: dict[tuple[Any, ...], Layout] = {}  # by all that a layout depends on

    def of(self, path: str, module: nn.Module | None, tensor: torch.Tensor, place: Place) -> Layout:
        """Return the layout of a tensor of this module at this place."""
        shape = tuple(tensor.shape)
        key = (path, id(module), shape, self.batch_size, place, tuple(self.pads))
        layout = self._found.get(key)
        if layout is None:
            layout = self._axes.layout(path, module, shape, self.batch_size, place, self.pads)
            self._found[key] = layout
        return layout
