"""The lineage of each tensor: the calls and values that it was computed from, kept as long as it lives."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch

from fno_telemetry.tracing.appearances import Appearances
from fno_telemetry.tracing.tensor_shapes import read_shape
from fno_telemetry.tracing.tensor_table import TensorTable


class Lineage(NamedTuple):
    """Sets as bit masks: bit i of `calls` and `makers` is the module call with index i.

    `calls` are all calls that a tensor descends from; `makers` are the last calls with parameters of their
    own on the way to it, where bit 0 means the model's input. `value` is one bit for the tensor's value, the
    same for views and copies; `values` are the bits of everything that it descends from.
    """

    calls: int = 0
    makers: int = 0
    values: int = 0
    value: int = 0

    def join(self, other: "Lineage") -> "Lineage":
        """Return the lineage of a tensor computed from both, without a value of its own yet."""
        return Lineage(self.calls | other.calls, self.makers | other.makers, self.values | other.values)


UNKNOWN = Lineage()
MODEL_INPUT = Lineage(makers=1)


class Operand(NamedTuple):
    """The shape of a tensor that a result was computed from, and the bit of its value.

    `depth` is 0 for what the model is given, such as a grid or a mask; 1 for what its modules have computed,
    such as an embedding of the grid; 2 for what comes from a spectral module.
    """

    shape: tuple[int, ...]
    value: int
    depth: int = 2


class Whole(NamedTuple):
    """A tensor that was split: its lineage and its shape."""

    lineage: Lineage
    shape: tuple[int, ...]


class Part(NamedTuple):
    """One of the parts of a tensor that was split, counted from 0."""

    whole: Whole
    position: int
    of: int


class LineageTable(TensorTable[Lineage]):
    """Lineages by tensor object.

    `constants` are tensors that no input of the model has reached, such as a grid that the forward makes.
    `spectral` is a mask of the spectral calls that have ended; `appearances` tells where the tensors appear.
    """

    def __init__(self) -> None:
        super().__init__()
        self.constants: TensorTable[bool] = TensorTable()
        self.parts: TensorTable[Part] = TensorTable()
        self.appearances = Appearances()
        self.spectral = 0
        self._values = 0
        self._origins: dict[int, int] = {}  # by value: the one value that it was computed from

    def set_made(self, tensor: torch.Tensor, lineage: Lineage, origin: int = 0) -> None:
        """Set the lineage of a tensor with a new value; `origin` is the one value that it comes from."""
        value = 1 << self._values
        self._values += 1
        if origin:
            self._origins[value] = origin
        self.set(tensor, lineage._replace(values=lineage.values | value, value=value))

    def operands(self, tensors: Iterable[torch.Tensor]) -> list[Operand]:
        """Return shape and value of each tensor with a known lineage."""
        known = ((read_shape(tensor), self.get(tensor)) for tensor in tensors)
        return [
            Operand(shape, lineage.value, (lineage.calls != 0) + (lineage.calls & self.spectral != 0))
            for shape, lineage in known
            if shape is not None and lineage
        ]

    def trace_back(self, values: int) -> int:
        """Return these values and all that they come from one after the other, without a second operand."""
        found = 0
        for value in map(_bit, members(values)):
            while value and not found & value:
                found |= value
                value = self._origins.get(value, 0)
        return found

    def join_parts(self, tensors: Sequence[torch.Tensor]) -> Whole | None:
        """Return the tensor that these are all parts of, in order; None if they are not."""
        parts = [part for part in map(self.parts.get, tensors) if part is not None]
        complete = [part.position for part in parts] == list(range(len(tensors)))
        wholes = {part.whole for part in parts}
        return parts[0].whole if complete and len(wholes) == 1 and parts[0].of == len(parts) else None

    def union(self, tensors: Iterable[torch.Tensor]) -> Lineage | None:
        """Return the joined lineage of the tensors with a known lineage, None if there are none."""
        known = [lineage for lineage in map(self.get, tensors) if lineage is not None]
        if not known:
            return None
        joined = known[0]
        for lineage in known[1:]:
            joined = joined.join(lineage)
        return joined

    def clear(self) -> None:
        """Forget everything; values are numbered from 0 again."""
        super().clear()
        self.constants.clear()
        self.parts.clear()
        self.appearances.clear()
        self._origins.clear()
        self._values = self.spectral = 0


def find_origin(operands: Sequence[Operand], shape: tuple[int, ...] | None) -> int:
    """Return the value that a result of this shape comes from; 0 if several values have equal part in it.

    A scale, a shift or an embedding that is broadcast over a field has no equal part, nor has a tensor of
    less depth than another one.
    """
    if shape is None:
        return 0
    of_shape = [operand for operand in operands if operand.shape == shape]
    of_rank = [operand for operand in operands if len(operand.shape) == len(shape)]
    for kept in (of_shape, of_rank, operands):
        if kept:
            deepest = max(operand.depth for operand in kept)
            values = {operand.value for operand in kept if operand.depth == deepest}
            return values.pop() if len(values) == 1 else 0
    return 0


def _bit(position: int) -> int:
    return 1 << position


def members(mask: int) -> Iterator[int]:
    """Yield the positions of the bits that are set, lowest first."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest
