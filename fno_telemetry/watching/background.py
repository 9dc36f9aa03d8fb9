"""A thread that works off what is handed to it, in order, while the training loop goes on."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Background(Generic[Item]):
    """Calls `act` with each item on a thread of its own, and `finish` after the last one.

    Neither may raise. The thread is a daemon, so that the process can end while one of them hangs.
    """

    def __init__(
        self, name: str, act: Callable[[Item], None], finish: Callable[[], None], most_waiting: int
    ) -> None:
        self._name, self._act, self._finish = name, act, finish
        self._most_waiting = most_waiting
        self._waiting: deque[Item] = deque()
        self._changed = threading.Condition()
        self._has_ended = False
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """The number of items that wait."""
        return len(self._waiting)

    def put(self, item: Item) -> bool:
        """Hand over an item without waiting; return whether there was room for it."""
        with self._changed:
            if self._has_ended or len(self._waiting) >= self._most_waiting:
                return False
            self._waiting.append(item)
            self._start()
            self._changed.notify()
        return True

    def end(self) -> None:
        """Take no more items, without waiting."""
        with self._changed:
            self._has_ended = True
            self._start()
            self._changed.notify()

    def join(self, seconds: float) -> bool:
        """Wait until all is done, but not longer than this; return whether it is. Call `end` first."""
        if self._thread is not None:
            self._thread.join(max(seconds, 0.0))
        return self._thread is None or not self._thread.is_alive()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"fno-telemetry {self._name}", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._has_ended)
                if not self._waiting:
                    break
                item = self._waiting.popleft()
            self._act(item)
        self._finish()
