"""Which trainings there are: those that serve for choosing thresholds, and those that judge.

Choosing and judging share no seed, and some tasks serve for judging only. Nobody who mends rules looks at
findings of the judging ones; their reports are written, and `judge` prints their tables without examples.
"""

import random
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from benchmarks.natural_failures.controls import CONTROLS, Control
from benchmarks.natural_failures.kinds.contract import Kind
from benchmarks.natural_failures.kinds.known import KINDS
from benchmarks.natural_failures.networks.families import FAMILIES
from benchmarks.natural_failures.tasks.known import TASKS

SEEDS = {"choose": (0, 1, 2), "judge": (20, 21, 22)}
FAILING, HEALTHY = 3, 3  # runs of each kind, and of each control
SPIKES = 3  # times as many of those that break at a known step
PLAIN = "plain"
IN_3D = (PLAIN, "warm-up and cosine", "ReLU", "group norm", "twice the steps")
"""Controls of three dimensions."""


@dataclass(frozen=True)
class Run:
    """One training: a kind of failure or a control, for a task, family and seed."""

    what: str
    task: str
    family: str
    seed: int

    @property
    def fails(self) -> bool:
        """Whether it is a failure, not a control."""
        return self.what in KINDS

    @property
    def name(self) -> str:
        """The name of its folder."""
        slug = re.sub(r"[^a-z0-9]+", "-", self.what.lower()).strip("-")
        return f"{slug}.{self.task}.{self.family}.{self.seed}"

    @property
    def plain(self) -> "Run":
        """The healthy training that it is compared with."""
        return Run(PLAIN, self.task, self.family, self.seed)


def list_runs(which: str, most: int = max(FAILING, HEALTHY)) -> list[Run]:
    """Return the runs of "choose" or "judge": the plain ones, then one of everything, then the next ones.

    There are at most so many of each kind and control.
    """
    things = [*KINDS.values(), *(control for control in CONTROLS.values() if control.name != PLAIN)]
    chosen = [list(_choose(thing, which)) for thing in things]
    rounds = [
        run
        for turn in range(most)
        for thing, runs in zip(things, chosen, strict=True)
        for run in _select_turn(runs, turn, _runs_at_once(thing))
    ]
    solid = [(task, family) for task in TASKS.values() for family in FAMILIES if task.dimension == 3]
    rounds += [
        Run(name, task.name, family, seed)
        for task, family in solid
        for name, seed in product(IN_3D, SEEDS[which][:2])
        if CONTROLS[name].fits(task, family)
    ]
    plain = dict.fromkeys(run.plain for run in rounds)
    return list(dict.fromkeys((*plain, *rounds)))


def _select_turn(runs: Sequence[Run], turn: int, at_once: int) -> Sequence[Run]:
    return runs[turn * at_once : (turn + 1) * at_once]


def _runs_at_once(thing: Kind | Control) -> int:
    return SPIKES if isinstance(thing, Kind) and thing.spike is not None else 1


def _choose(thing: Kind | Control, which: str) -> Iterator[Run]:
    flat = [task for task in TASKS.values() if task.dimension < 3]
    tasks = [task for task in flat if which == "judge" or not task.set_aside]
    pairs = [(task, family) for task in tasks for family in FAMILIES if thing.fits(task, family)]
    random.Random(zlib.crc32(f"{which} {thing.name}".encode())).shuffle(pairs)
    # In the judging set the tasks that are set aside come first, then each further one before any twice.
    order: list[tuple[int, int]] = []
    seen: list[str] = []
    for index, (task, _) in enumerate(pairs):
        order.append((seen.count(task.name) - (task.set_aside and task.name not in seen), index))
        seen.append(task.name)
    number = (FAILING if isinstance(thing, Kind) else HEALTHY) * _runs_at_once(thing)
    for turn, (_, index) in enumerate(sorted(order)[:number]):
        task, family = pairs[index]
        yield Run(thing.name, task.name, family, SEEDS[which][turn % len(SEEDS[which])])


def count_combinations(runs: Sequence[Run]) -> int:
    """Return how many tasks, families and seeds the runs have."""
    return len({run.plain for run in runs})
