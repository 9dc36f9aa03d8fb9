"""What something held: read before, compared and written back afterwards."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

# Equal values of these types are the same; anything else is only the same as itself.
_PLAIN = (int, str, bytes, tuple, set)


class Kept(Protocol):
    """Something as it was."""

    def changed(self) -> bool:
        """Whether it differs now."""
        ...

    def put_back(self) -> None:
        """Make it what it was, as far as that can be done."""
        ...


@dataclass(frozen=True)
class Contents:
    """What `read` returned before; `write` puts it back, and does nothing where that is not possible."""

    read: Callable[[], Any]
    before: Any
    write: Callable[[], object]

    def changed(self) -> bool:
        """Whether `read` returns something else now."""
        return not _same(self.read(), self.before)

    def put_back(self) -> None:
        """Write, if anything changed."""
        if self.changed():
            self.write()


def watch(read: Callable[[], Any]) -> Contents:
    """Return contents that can be compared and not put back."""
    return Contents(read, read(), lambda: None)


def _same(now: Any, before: Any) -> bool:
    if isinstance(before, dict):
        return _same([*now], [*before]) and _same([*now.values()], [*before.values()])
    if isinstance(before, list):
        return len(now) == len(before) and (
            all(map(operator.is_, now, before)) or all(map(_same_value, now, before))
        )
    return _same_value(now, before)


def _same_value(now: object, before: object) -> bool:
    return now is before or (type(now) is type(before) and type(now) in _PLAIN and bool(now == before))
