"""The layout of each tensor: its sample, channel and spatial axes, from one followed forward."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import NamedTuple

import torch
from torch import nn

from fno_telemetry.statistics.activation import Layout
from fno_telemetry.tracing.axis_groups import AxisGroup
from fno_telemetry.tracing.axis_tracking import AxisTracker
from fno_telemetry.tracing.module_calls import Call


class Place(NamedTuple):
    """A tensor in a forward: an "input" or "output" of a module call, or the "sum" of a block."""

    kind: str
    name: str
    call: int = 0
    item: str | None = None


class TrackedSpace(NamedTuple):
    """The spatial axes of a tensor with `rank` dimensions; `sizes` has several sizes for a flattened axis.

    `padding` holds for each of these sizes the call of `pad` in the batch and the pair of its amounts, None
    without padding. `frequencies` are the axes along which the tensor holds Fourier coefficients; they are
    neither spatial nor channels.
    """

    rank: int
    axes: tuple[int, ...]
    sizes: tuple[tuple[int, ...], ...]
    padding: tuple[tuple[int, int] | None, ...]
    frequencies: tuple[int, ...] = ()


class Places:
    """The axes of the tensor at each place, followed through one forward."""

    def __init__(self) -> None:
        self.tracker = AxisTracker()
        self._axes: dict[Place, tuple[AxisGroup, ...]] = {}
        self._clock: dict[Place, int] = {}

    def note(self, place: Place, tensor: torch.Tensor) -> None:
        """Remember the axes of the tensor at this place, without keeping the tensor."""
        self._axes[place], self._clock[place] = self.tracker.groups_of(tensor), self.tracker.clock
        self.tracker.clock += 1

    def find_spaces(self, counts: Callable[[Call], bool]) -> dict[Place, TrackedSpace]:
        """Return the spatial axes at each place, taking them from the transforms of the calls that count.

        Where an axis could not be followed, the axes that are usually spatial in that rank take its place.
        """
        space = self.tracker.find_space(counts)
        numbers = self.tracker.find_frequencies(space)
        frequencies = {
            place: tuple(a for a, axis in enumerate(axes) if self.tracker.holds_any(axis, numbers))
            for place, axes in self._axes.items()
        }
        parts = {
            place: [self.tracker.spatial_parts(axis, space) for axis in axes]
            for place, axes in self._axes.items()
        }
        spatial = {
            place: tuple(a for a, own in enumerate(by_axis) if own) for place, by_axis in parts.items()
        }
        usual = Counter(
            (len(parts[place]), axes) for place, axes in spatial.items() if axes and not frequencies[place]
        )
        tracked = {}
        for place, axes in spatial.items():
            rank = len(parts[place])
            if not axes and not frequencies[place]:
                continue
            wider = [a for (r, a), count in usual.most_common() if r == rank and set(a) > set(axes)]
            axes = () if frequencies[place] else wider[0] if wider else axes
            found = [parts[place][a] or (self._axes[place][a],) for a in axes]
            sizes = tuple(tuple(prod(axis.size for axis in part) for part in own) for own in found)
            clock = self._clock[place]
            padding = tuple(self.tracker.find_padding(part, clock) for own in found for part in own)
            tracked[place] = TrackedSpace(rank, axes, sizes, padding, frequencies[place])
        return tracked


@dataclass(frozen=True)
class AxesGuide:
    """Everything known about the spatial axes of a model.

    `tracked`: by place, where axes could be followed from tensor to tensor. For all other places:
    `by_rank`: the axes that Fourier transforms or convolutions ran over, by the number of dimensions;
    `sizes`: the sizes of those axes; `flattened`: the numbers of points of fields with several axes, which
    identify an axis that space was flattened to; `given`, `given_channels`: axes given by hand, by path.
    """

    tracked: Mapping[Place, TrackedSpace] = field(default_factory=dict)
    by_rank: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    sizes: frozenset[tuple[int, ...]] = frozenset()
    flattened: frozenset[int] = frozenset()
    given: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    given_channels: Mapping[str, int] = field(default_factory=dict)

    def layout(
        self,
        path: str,
        module: nn.Module | None,
        shape: tuple[int, ...],
        batch_size: int | None,
        place: Place | None = None,
        pads: Sequence[Sequence[int]] = (),
    ) -> Layout:
        """Return the layout of a tensor of this shape at this place; by default the module's first output.

        `pads` are the amounts of each call of `pad` in the batch so far.
        """
        sample = 0 if shape and shape[0] == batch_size else None
        tracked = self.tracked.get(place or Place("output", path))
        tracked = tracked if tracked is not None and _fits(tracked, shape, sample) else None
        space = self.given.get(path)
        if space is None or any(axis >= len(shape) for axis in space):
            space = tracked.axes if tracked else self._space(module, shape, sample)
            # A transform that runs over the samples by mistake makes no space of them.
            space = tuple(axis for axis in space if axis != sample)
        if sample in space:
            sample = None  # who gives axes by hand knows that the first one holds no samples
        channel = self.given_channels.get(path)
        if channel is None or channel >= len(shape) or channel in space:
            frequencies = tracked.frequencies if tracked else ()
            channel = _channel(module, len(shape), sample, (*space, *frequencies))
        layout = Layout(sample, channel, space)
        return _without_padding(layout, tracked, pads) if tracked and tracked.axes == space else layout

    def _space(self, module: nn.Module | None, shape: tuple[int, ...], sample: int | None) -> tuple[int, ...]:
        rank = len(shape)
        convolved = _convolved_dimensions(module)
        if convolved == 1 and rank and shape[-1] in self.flattened:
            # Neighbours along a flattened axis are not neighbours in space, so it has no spectrum.
            return ()
        if convolved and rank >= convolved + 1:
            return tuple(range(rank - convolved, rank))
        usual, first, end = self.by_rank.get(rank, ()), 0 if sample is None else 1, rank
        if _has_channels_last(module):
            end -= 1
            if usual and usual[-1] == end and usual[0] > first:
                usual = tuple(axis - 1 for axis in usual)
        if usual and tuple(shape[axis] for axis in usual) in self.sizes:
            return usual
        runs = self._runs_of_known_size(shape, first, end)
        if len(runs) == 1:
            return runs[0]
        last = tuple(range(rank - len(usual), rank))
        if any(shape[axis] == 1 for axis in usual) and min(shape[rank - len(usual) :], default=1) > 1:
            # The only channel of an image, where space comes before the channels in the rest of the network.
            return last
        # Resolution changes inside a network, so axes of unknown size are spatial at the usual positions.
        return usual

    def _runs_of_known_size(self, shape: tuple[int, ...], first: int, end: int) -> list[tuple[int, ...]]:
        runs = []
        for sizes in sorted(self.sizes):
            for start in range(first, end - len(sizes) + 1):
                if shape[start : start + len(sizes)] == sizes:
                    runs.append(tuple(range(start, start + len(sizes))))
        return runs


def _fits(tracked: TrackedSpace, shape: tuple[int, ...], sample: int | None) -> bool:
    """Whether this fits a tensor of that shape: a flattened axis of another size cannot be unflattened."""
    if tracked.rank != len(shape) or sample in tracked.axes:
        return False
    sizes = zip(tracked.axes, tracked.sizes, strict=True)
    return all(len(parts) == 1 or prod(parts) == shape[axis] for axis, parts in sizes)


def _without_padding(layout: Layout, tracked: TrackedSpace, pads: Sequence[Sequence[int]]) -> Layout:
    """Return the layout with the sizes of flattened axes and the padding."""
    unflattened = tracked.sizes if any(len(parts) > 1 for parts in tracked.sizes) else ()
    padding = tuple(
        tuple(pads[pair[0]][2 * pair[1] :][:2]) if pair and pair[0] < len(pads) else (0, 0)
        for pair in tracked.padding
    )
    return replace(layout, unflattened=unflattened, padding=padding if any(map(any, padding)) else ())


def _channel(module: nn.Module | None, rank: int, sample: int | None, taken: tuple[int, ...]) -> int | None:
    free = [axis for axis in range(rank) if axis != sample and axis not in taken]
    if not free:
        return None
    if _has_channels_last(module):
        return free[-1]
    return 1 if 1 in free else free[0]


def _has_channels_last(module: nn.Module | None) -> bool:
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return len(module.normalized_shape) == 1
    return isinstance(module, nn.Linear | nn.Embedding)


def _convolved_dimensions(module: nn.Module | None) -> int:
    """Return the number of trailing axes that a torch module works on by its class, 0 if that is unknown."""
    name = type(module).__name__ if type(module).__module__.startswith("torch.nn") else ""
    if name.startswith(("Conv", "LazyConv", "InstanceNorm", "MaxPool", "AvgPool", "Adaptive", "Upsampling")):
        return next((int(digit) for digit in "123" if f"{digit}d" in name), 0)
    return 0
