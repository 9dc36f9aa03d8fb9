"""The tensors of a forward by their place in it, and which of their axes turned out to be space."""

from collections import Counter
from collections.abc import Callable
from math import prod
from typing import NamedTuple

import torch

from fno_telemetry.axis_identities import AxisIdentities
from fno_telemetry.axis_parts import Axis
from fno_telemetry.module_calls import Call


class Place(NamedTuple):
    """A tensor in a forward: an "input" or "output" of a module's call, or a block's "sum"."""

    kind: str
    name: str
    call: int = 0
    item: str | None = None


class SeenSpace(NamedTuple):
    """The spatial axes that a tensor of so many dimensions had; `sizes` has several for a flattened axis.

    `margins` tells for each axis by which pair of which call of `pad` in the batch it was padded, if by any.
    """

    rank: int
    axes: tuple[int, ...]
    sizes: tuple[tuple[int, ...], ...]
    margins: tuple[tuple[int, int] | None, ...]


class Places:
    """The axes of the tensors at each place, followed through one forward."""

    def __init__(self) -> None:
        self.identities = AxisIdentities()
        self._axes: dict[Place, tuple[Axis, ...]] = {}
        self._clock: dict[Place, int] = {}

    def note(self, place: Place, tensor: torch.Tensor) -> None:
        """Remember the axes of the tensor at this place, and not the tensor."""
        self._axes[place], self._clock[place] = self.identities.of(tensor), self.identities.clock
        self.identities.clock += 1

    def seen_space(self, counts: Callable[[Call], bool]) -> dict[Place, SeenSpace]:
        """Return what is space where the transforms of the calls that count are over space.

        Where an axis was lost on the way, all that usually are space at that number of dimensions are.
        """
        space = self.identities.space(counts)
        sizes = {
            place: [self.identities.sizes_in_space(axis, space) for axis in axes]
            for place, axes in self._axes.items()
        }
        spatial = {place: tuple(a for a, own in enumerate(found) if own) for place, found in sizes.items()}
        usual = Counter((len(sizes[place]), axes) for place, axes in spatial.items() if axes)
        found = {}
        for place, axes in spatial.items():
            rank = len(sizes[place])
            wider = [a for (r, a), count in usual.most_common() if r == rank and set(a) > set(axes)]
            if not axes:
                continue
            axes = wider[0] if wider else axes
            whole = [sizes[place][a] or (prod(part.size for part in self._axes[place][a]),) for a in axes]
            margins = tuple(self.identities.margin(self._axes[place][a], self._clock[place]) for a in axes)
            found[place] = SeenSpace(rank, axes, tuple(whole), margins)
        return found
