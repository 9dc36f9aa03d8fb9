"""Axes and what they consist of: which are the same, and which were flattened into one."""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple


class Part(NamedTuple):
    """An axis, or one of those that were flattened into it; `size` is that in the tensor at hand."""

    identity: int
    size: int


Axis = tuple[Part, ...]


class AxisGroups:
    """What is known of all axes so far."""

    def __init__(self) -> None:
        self._same: list[int] = []  # by identity: another one that it is the same as, or itself
        self._apart: dict[int, Axis] = {}  # by identity: the parts that it turned out to have

    def reshaped(self, known: Sequence[Axis], shape: Sequence[int]) -> tuple[Axis, ...] | None:
        """Return the axes of what was reshaped to this shape; None where axes do not stay in order."""
        parts = [part for axis in known for part in self.parts(axis) if part.size != 1]
        if known and known[0][0].size == 1:
            # What one sample is flattened into holds the samples as well, however many there are.
            parts.insert(0, known[0][0])
        axes: list[Axis] = []
        for place, size in enumerate(shape):
            taken = [parts.pop(0)] if size == 1 and parts and parts[0].size == 1 else []
            while parts and prod(part.size for part in taken) < size:
                taken.append(parts.pop(0))
            if taken and taken[-1].size > size > 1 and prod(part.size for part in taken[:-1]) == 1:
                # Whatever an axis is taken apart into is known of it from then on.
                whole = taken.pop()
                sizes = _leading(shape[place:], whole.size)
                if not sizes:
                    return None
                self._apart[whole.identity] = tuple(part for one in sizes for part in self.new(one))
                parts = [part for part in self._apart[whole.identity] if part.size != 1] + parts
                taken.append(parts.pop(0))
            if prod(part.size for part in taken) != size:
                return None
            axes.append(tuple(taken) or self.new(size))
        return tuple(axes)

    def resized(self, axes: Sequence[Axis], shape: Sequence[int]) -> tuple[Axis, ...]:
        """Return the same axes in another size; one that was flattened is itself no longer then."""
        resized = []
        for axis, size in zip(axes, shape, strict=True):
            if prod(part.size for part in axis) == size:
                resized.append(axis)
            else:
                resized.append((Part(axis[0].identity, size),) if len(axis) == 1 else self.new(size))
        return tuple(resized)

    def new(self, size: int) -> Axis:
        """Return an axis that is none of those before."""
        self._same.append(len(self._same))
        return (Part(len(self._same) - 1, size),)

    def root(self, identity: int) -> int:
        """Return the identity that stands for all that are the same as this one."""
        while self._same[identity] != identity:
            identity = self._same[identity]
        return identity

    def parts(self, axis: Axis) -> Axis:
        """Return the axis as far as it is known by now what it consists of."""
        parts: list[Part] = []
        for identity, size in axis:
            root = self.root(identity)
            inner = self._apart.get(root, ())
            if inner and prod(part.size for part in inner) == size:
                parts += self.parts(inner)
            else:
                parts.append(Part(root, size))
        return tuple(parts)

    def unite(self, one: Axis, other: Axis) -> None:
        """Take note that both are the same axis, or flattened from the same ones."""
        one, other = self.parts(one), self.parts(other)
        if [part.size for part in one] == [part.size for part in other]:
            for first, second in zip(one, other, strict=True):
                self._same[first.identity] = second.identity
                if first.identity != second.identity and first.identity in self._apart:
                    self._apart.setdefault(second.identity, self._apart.pop(first.identity))
        elif len(one) == 1 or len(other) == 1:
            (whole,), parts = (one, other) if len(one) == 1 else (other, one)
            if all(part.identity != whole.identity for part in parts):
                self._apart[whole.identity] = parts


def _leading(sizes: Sequence[int], product: int) -> Sequence[int]:
    """Return as many of the sizes as have this product, () when none have."""
    for count in range(1, len(sizes) + 1):
        if prod(sizes[:count]) == product:
            return sizes[:count]
    return ()
