"""How much of a training loop's time a watch takes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class LoopCost:
    """Adds up the seconds for which a loop waits for its watch, on the clock of the host."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._started = time.perf_counter()
        self._is_counting = False

    @property
    def elapsed(self) -> float:
        """The seconds since the watch began."""
        return time.perf_counter() - self._started

    @property
    def share(self) -> float:
        """The share of these seconds that the loop waited."""
        return min(1.0, self.seconds / max(self.elapsed, 1e-9))

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the time of the block; a block within another one is counted once."""
        if self._is_counting:
            yield
            return
        started, self._is_counting = time.perf_counter(), True
        try:
            yield
        finally:
            self._is_counting = False
            self.seconds += time.perf_counter() - started

    def add(self, seconds: float) -> None:
        """Count what was measured elsewhere, such as in hooks during a forward."""
        self.seconds += seconds
