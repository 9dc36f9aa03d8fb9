"""The layout of what is compared with a target: an output, or what a function has made of it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from fno_telemetry.statistics.activation import Layout


class KnownOutput(NamedTuple):
    """An output of the model as it was measured; its first size may be that of several batches."""

    shape: tuple[int, ...]
    layout: Layout


def find_compared_layout(
    shape: tuple[int, ...], outputs: Sequence[KnownOutput], batch_size: int | None
) -> Layout | None:
    """Return the layout of a tensor of this shape, from those of the model's outputs; None if none tells.

    The first of these that holds for an output counts:

    1. The tensor has its shape: it has its axes.
    2. It has as many axes, with its sizes in space: it has its axes, and perhaps other channels.
    3. Exactly one run of neighbouring axes has its sizes in space: these, wherever they are.
    4. It has as many axes: it has its axes, and other sizes in space, as after cropping.
    """
    alike = [output for output in outputs if len(output.shape) == len(shape)]
    for output in (*(o for o in alike if _has_shape(o, shape)), *(o for o in alike if _has_sizes(o, shape))):
        return output.layout
    sample = 0 if shape and shape[0] == batch_size else None
    for output in outputs:
        if (space := _find_run(shape, _sizes(output), 0 if sample is None else 1)) is not None:
            free = [axis for axis in range(len(shape)) if axis != sample and axis not in space]
            channel = 1 if 1 in free else min(free, default=None)
            return replace(output.layout, sample=sample, channel=channel, space=space)
    for output in alike:
        return replace(output.layout, unflattened=(), padding=())
    return None


def _sizes(output: KnownOutput) -> tuple[int, ...]:
    return tuple(output.shape[axis] for axis in output.layout.space)


def _has_shape(output: KnownOutput, shape: tuple[int, ...]) -> bool:
    first = 0 if output.layout.sample is None else 1
    return output.shape[first:] == shape[first:]


def _has_sizes(output: KnownOutput, shape: tuple[int, ...]) -> bool:
    return bool(output.layout.space) and _sizes(output) == tuple(shape[axis] for axis in output.layout.space)


def _find_run(shape: tuple[int, ...], sizes: tuple[int, ...], first: int) -> tuple[int, ...] | None:
    """Return the only run of neighbouring axes with these sizes, from `first` on; None if it is not one."""
    if not sizes:
        return None
    starts = [
        start
        for start in range(first, len(shape) - len(sizes) + 1)
        if shape[start : start + len(sizes)] == sizes
    ]
    return tuple(range(starts[0], starts[0] + len(sizes))) if len(starts) == 1 else None
