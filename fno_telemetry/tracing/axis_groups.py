"""Axes and the groups that they form: which axes are the same, and which were flattened into one."""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple


class PlainAxis(NamedTuple):
    """One axis that was not flattened from others; `size` is its size in the tensor at hand."""

    number: int
    size: int


AxisGroup = tuple[PlainAxis, ...]
"""An axis of a tensor: the plain axes that were flattened into it, in order; a single one if none were."""


class AxisGroups:
    """Everything known about the axes so far."""

    def __init__(self) -> None:
        self._same_as: list[int] = []  # by number: an axis that is the same, or the axis itself
        self._flattened_from: dict[int, AxisGroup] = {}  # by number: what the axis turned out to consist of
        self._split_off: set[int] = set()  # axes that came out of another one

    def reshape(self, groups: Sequence[AxisGroup], shape: Sequence[int]) -> tuple[AxisGroup, ...] | None:
        """Return the axes of a tensor after reshaping to `shape`; None if the axes do not stay in order."""
        remaining = [axis for group in groups for axis in self.resolve(group) if axis.size != 1]
        if groups and groups[0][0].size == 1:
            # With one sample, an axis flattened from the sample axis and others has their size alone.
            remaining.insert(0, groups[0][0])
        reshaped: list[AxisGroup] = []
        for position, size in enumerate(shape):
            taken = [remaining.pop(0)] if size == 1 and remaining and remaining[0].size == 1 else []
            while remaining and prod(axis.size for axis in taken) < size:
                taken.append(remaining.pop(0))
            if taken and taken[-1].size > size > 1 and prod(axis.size for axis in taken[:-1]) == 1:
                # Splitting an axis shows what it consists of, also in tensors seen before.
                split = taken.pop()
                sizes = _leading(shape[position:], split.size)
                if not sizes:
                    return None
                self._flattened_from[split.number] = tuple(axis for one in sizes for axis in self.create(one))
                self._split_off |= {axis.number for axis in self._flattened_from[split.number]}
                remaining = [
                    axis for axis in self._flattened_from[split.number] if axis.size != 1
                ] + remaining
                taken.append(remaining.pop(0))
            if prod(axis.size for axis in taken) != size:
                return None
            reshaped.append(tuple(taken) or self.create(size))
        return tuple(reshaped)

    def resize(self, groups: Sequence[AxisGroup], shape: Sequence[int]) -> tuple[AxisGroup, ...]:
        """Return the same axes in another size; a flattened axis that changes its size becomes a new axis."""
        resized = []
        for group, size in zip(groups, shape, strict=True):
            if prod(axis.size for axis in group) == size:
                resized.append(group)
            else:
                resized.append((PlainAxis(group[0].number, size),) if len(group) == 1 else self.create(size))
        return tuple(resized)

    def create(self, size: int) -> AxisGroup:
        """Return a new axis."""
        self._same_as.append(len(self._same_as))
        return (PlainAxis(len(self._same_as) - 1, size),)

    def find_root(self, number: int) -> int:
        """Return the number that represents all axes that are the same as this one."""
        while self._same_as[number] != number:
            number = self._same_as[number]
        return number

    def resolve(self, group: AxisGroup) -> AxisGroup:
        """Return the plain axes that the group consists of, by everything known so far."""
        resolved: list[PlainAxis] = []
        for number, size in group:
            root = self.find_root(number)
            inner = self._flattened_from.get(root, ())
            if inner and prod(axis.size for axis in inner) == size:
                resolved += self.resolve(inner)
            else:
                resolved.append(PlainAxis(root, size))
        return tuple(resolved)

    def is_split_off(self, axis: PlainAxis) -> bool:
        """Whether an axis came out of another one, as rows and columns of a patch out of channels."""
        return axis.number in self._split_off

    def unite(self, first: AxisGroup, second: AxisGroup) -> None:
        """Record that both are the same axis, or were flattened from the same axes."""
        first, second = self.resolve(first), self.resolve(second)
        if [axis.size for axis in first] == [axis.size for axis in second]:
            for one, other in zip(first, second, strict=True):
                self._same_as[one.number] = other.number
                if one.number != other.number and one.number in self._flattened_from:
                    self._flattened_from.setdefault(other.number, self._flattened_from.pop(one.number))
        elif len(first) == 1 or len(second) == 1:
            (flattened,), parts = (first, second) if len(first) == 1 else (second, first)
            if all(axis.number != flattened.number for axis in parts):
                self._flattened_from[flattened.number] = parts


def _leading(sizes: Sequence[int], product: int) -> Sequence[int]:
    """Return the leading sizes that have this product, () if there are none."""
    for count in range(1, len(sizes) + 1):
        if prod(sizes[:count]) == product:
            return sizes[:count]
    return ()
