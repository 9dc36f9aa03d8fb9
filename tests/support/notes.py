"""Notes that a module of a test makes in its forward, which a capture does not put back."""

from collections.abc import Iterator
from typing import Any, ClassVar
from weakref import WeakKeyDictionary


class Notes:
    """A list that belongs to no model: what it holds is kept by its class, where no capture looks."""

    _held: ClassVar["WeakKeyDictionary[Notes, list[Any]]"] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._held[self] = []

    def append(self, note: Any) -> None:
        self._held[self].append(note)

    def clear(self) -> None:
        self._held[self].clear()

    def __len__(self) -> int:
        return len(self._held[self])

    def __iter__(self) -> Iterator[Any]:
        return iter(self._held[self])

    def __getitem__(self, position: Any) -> Any:
        return self._held[self][position]

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other
