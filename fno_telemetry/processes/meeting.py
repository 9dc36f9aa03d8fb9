"""Where the processes of a training find out whether all go on together, before any waits in a collective.

Each says in the store of `torch.distributed` that it is there; the first one that knows the answer writes it.
"""

import contextlib
import hashlib
import time
from collections import Counter
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.distributed.distributed_c10d import PrefixStore

from fno_telemetry.processes.group import find_timeout

JOIN_SECONDS = 10.0
"""How long the processes that watch wait for one that may never do so."""

_TOGETHER = "together"
_LONGEST_PAUSE = 0.02  # seconds between two questions

_made: Counter[str] = Counter()  # how many watches of such a model this process has made


class Meeting:
    """The watches of one model in all processes, each of which makes it when its watch begins.

    `options` is what all of them have to be watched with.
    """

    def __init__(self, model: nn.Module, options: str) -> None:
        name = _name(model)
        _made[name] += 1
        store: Any = dist.distributed_c10d._get_default_store()
        self._store = PrefixStore(f"fno_telemetry/{name}/{_made[name]}", store)
        self._count = dist.get_world_size()
        self._met = 0
        self._has_left = False
        self._store.add("watching", 1)
        self._options = f"options/{_shorten(options)}"
        self._store.add(self._options, 1)

    def meet(self) -> str | None:
        """Wait for the other processes; return why there is nothing to wait for, None if all are here.

        The answer is the same in all. It comes at the latest after half the time limit of the program's
        group, so that no process which does not come waits too long in the training itself.
        """
        self._met += 1
        here, answer = f"{self._met}/here", f"{self._met}/answer"
        self._store.add(here, 1)
        started, pause = time.monotonic(), 0.0005
        while not self._store.check([answer]):
            found = self._find_answer(here, time.monotonic() - started)
            if found is not None:
                # Only the first answer counts.
                self._store.compare_set(answer, "", found)
                break
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        said = self._store.get(answer).decode()
        if self._met > 1:
            # All have read the one before.
            for key in ("here", "answer"):
                with contextlib.suppress(Exception):  # not every store can
                    self._store.delete_key(f"{self._met - 1}/{key}")
        return None if said == _TOGETHER else said

    def leave(self) -> None:
        """Say that this process comes to no further meeting."""
        if not self._has_left:
            self._has_left = True
            with contextlib.suppress(Exception):  # the store may be gone
                self._store.add("left", 1)

    def _find_answer(self, here: str, waited: float) -> str | None:
        if self._store.add(here, 0) >= self._count:
            alike = self._met > 1 or self._store.add(self._options, 0) == self._count
            return _TOGETHER if alike else "the processes watch with different options"
        if self._store.add("left", 0):
            return "another process has ended its watch"
        if waited > JOIN_SECONDS and (watching := self._store.add("watching", 0)) < self._count:
            return f"only {watching} of {self._count} processes watch the model"
        if waited > find_timeout().total_seconds() / 2:
            return f"another process did not come to this step within {waited:.0f} s"
        return None


def _name(model: nn.Module) -> str:
    """Return a name that the same model has in every process."""
    parameters = [
        (name, None if nn.parameter.is_lazy(parameter) else tuple(parameter.shape))
        for name, parameter in model.named_parameters()
    ]
    return _shorten(repr((type(model).__name__, parameters)))


def _shorten(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
