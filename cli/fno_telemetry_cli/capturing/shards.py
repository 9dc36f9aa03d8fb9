"""`--shard`: the part of a series of checkpoints that one of several captures takes."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import fno_telemetry as ft

Item = TypeVar("Item")

_TYPED = re.compile(r"(\d{1,6})/(\d{1,6})")
_OF_SLURM = "SLURM_ARRAY_TASK"


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of a series: every `count`-th checkpoint from the `number`-th on, from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Return the shard that I/N names, or that of an array job of slurm; else OptionError."""
        if text == "slurm":
            return cls._of_slurm()
        match = _TYPED.fullmatch(text)
        number, count = map(int, match.groups()) if match else (0, 0)
        if not 1 <= number <= count:
            raise ft.OptionError(f"--shard {text!r}: expected I/N with I from 1 to N, such as 2/8, or slurm")
        return cls(number, count)

    @classmethod
    def _of_slurm(cls) -> "Shard":
        names = [f"{_OF_SLURM}_{name}" for name in ("ID", "MIN", "COUNT")]
        found = [os.environ.get(name, "") for name in names]
        step = os.environ.get(f"{_OF_SLURM}_STEP", "1")
        for name, value in zip((*names, f"{_OF_SLURM}_STEP"), (*found, step), strict=True):
            if not value.isdigit():
                said = f"is {value!r}" if value else "is not set"
                raise ft.OptionError(
                    f"--shard slurm: {name} {said}; it is set in an array job, such as sbatch --array=1-8"
                )
        number, first, count = map(int, found)
        number = (number - first) // max(int(step), 1) + 1
        if not 1 <= number <= count:
            raise ft.OptionError(
                f"--shard slurm: task {found[0]} of an array of {count} from {first} is none of its tasks; "
                "give I/N instead"
            )
        return cls(number, count)

    @property
    def label(self) -> str:
        """The shard in a file name."""
        return f"shard{self.number}of{self.count}"

    def select(self, items: Sequence[Item]) -> tuple[Item, ...]:
        """Return the items of this shard, maybe none."""
        return tuple(items[self.number - 1 :: self.count])
