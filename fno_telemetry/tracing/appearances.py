"""Where the tensors of a forward appear: as inputs and outputs of module calls, or of the functions between.

From that, a later forward can find the same tensors again without following anything.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch

from fno_telemetry.tracing.tensor_memory import share_memory
from fno_telemetry.tracing.tensor_table import TensorTable


class Appearance(NamedTuple):
    """A place in a forward: the `position`-th tensor among the inputs or outputs of a call or a function.

    `function` counts the functions that the call's own code has called, from 0; it is -1 for the inputs and
    outputs of the call itself.
    """

    call: int  # its index
    side: Literal["input", "output"]
    position: int
    function: int = -1


@dataclass(eq=False)
class Seen:
    """A tensor with one value: where it appears, each time with the moment, and when it is overwritten."""

    appearances: list[tuple[int, Appearance]] = field(default_factory=list)
    overwritten: int | None = None


class Product(NamedTuple):
    """Tensors and numbers that are multiplied, in this order."""

    tensors: tuple[Seen, ...]
    numbers: tuple[float, ...] = ()


Formula = tuple[Product, ...]
"""How a tensor is computed: the sum of these products, in this order. () if it is not known."""


class Appearances:
    """The tensors of one forward that are alive. `moment` counts starts and ends of calls and functions."""

    def __init__(self) -> None:
        self.moment = 0
        self._seen: TensorTable[Seen] = TensorTable()

    def note(
        self,
        tensors: Iterable[torch.Tensor],
        call: int,
        side: Literal["input", "output"],
        function: int = -1,
    ) -> None:
        """Note that these tensors appear now."""
        for position, tensor in enumerate(tensors):
            seen = self._seen.get(tensor)
            if seen is None:
                seen = Seen()
                self._seen.set(tensor, seen)
            seen.appearances.append((self.moment, Appearance(call, side, position, function)))

    def find(self, tensor: torch.Tensor) -> Formula:
        """Return the formula of a tensor that appeared; () of any other."""
        seen = self._seen.get(tensor)
        return () if seen is None else (Product((seen,)),)

    def overwrite(self, target: torch.Tensor) -> list[torch.Tensor]:
        """Note that a function is about to write into this tensor; return all that share its memory."""
        changing = []
        for tensor, seen in self._seen.items():
            if tensor is target or share_memory(tensor, target):
                seen.overwritten = self.moment
                self._seen.pop(tensor)
                changing.append(tensor)
        return changing

    def clear(self) -> None:
        """Forget everything."""
        self.moment = 0
        self._seen.clear()
