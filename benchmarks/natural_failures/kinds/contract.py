"""What a kind of failure is."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from benchmarks.natural_failures.networks.families import FAMILIES
from benchmarks.natural_failures.setup import Setup
from benchmarks.natural_failures.tasks.contract import Task

Places = tuple[str, ...]
"""Where the first finding belongs: "input", "output", "target", "model" (the whole), or regular expressions
on the places of layers and the names of parameters."""

OUTCOME: Places = ("output", "target", "model")
ANYWHERE: Places = ()
"""Where every layer is concerned, no place is wrong, and none is judged."""


@dataclass(frozen=True)
class Kind:
    """One way in which trainings fail by accident.

    `apply` changes a setup and returns the places. `spike` is the step at which a run breaks, for those
    that break at a known one.
    """

    name: str
    cause: str
    apply: Callable[[Setup], Places]
    families: Collection[str] = tuple(FAMILIES)
    tasks: Collection[str] | None = None
    spike: int | None = None
    needs_test: bool = False  # seen only where a report of test samples is compared

    def fits(self, task: Task, family: str) -> bool:
        """Return whether it can happen to this family and task."""
        # Healthy networks of three dimensions are controls: failures in them take long to show.
        if task.dimension > 2 or task.dimension not in FAMILIES[family].dimensions:
            return False
        if family not in self.families:
            return False
        return self.tasks is None or task.name in self.tasks
