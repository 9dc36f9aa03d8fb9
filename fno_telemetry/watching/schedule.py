"""Which steps of a training loop are due to be measured."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from fno_telemetry.errors import OptionError
from fno_telemetry.wording import describe_error

_ASKED = 10_000
"""Of a longer gap, a function is asked about so many steps, the last ones."""


@dataclass(frozen=True)
class Schedule:
    """The steps that are due: every so many from `start` up to `stop`, the `first` few, and those in `steps`.

    `every` may also be a function that says whether a step is due. The step `stop` is not due any more; with
    None there is no last one. With `every=None`, only `first` and `steps` are due.
    """

    every: int | Callable[[int], bool] | None = 100
    start: int = 0
    stop: int | None = None
    steps: Collection[int] = ()
    first: int = 0

    def __post_init__(self) -> None:
        if self.every is not None and not callable(self.every):
            _require(_is_whole(self.every) and self.every > 0, "every", self.every, "a whole number above 0")
        _require(_is_whole(self.start) and self.start >= 0, "start", self.start, "a whole number, 0 or more")
        _require(_is_whole(self.first) and self.first >= 0, "first", self.first, "a whole number, 0 or more")
        if self.stop is not None:
            _require(
                _is_whole(self.stop) and self.stop > self.start,
                "stop",
                self.stop,
                f"a whole number above `start`, which is {self.start}",
            )
        if isinstance(self.steps, str) or not isinstance(self.steps, Collection):
            raise OptionError(f"`steps` is {self.steps!r}; expected a list of whole numbers")
        _require(
            all(_is_whole(step) and step >= 0 for step in self.steps),
            "steps",
            self.steps,
            "whole numbers, 0 or more",
        )
        object.__setattr__(self, "steps", frozenset(self.steps))

    def is_due(self, step: int) -> bool:
        """Return whether this step is due; OptionError if the function raises."""
        if step in self.steps:
            return True
        if step < self.start or (self.stop is not None and step >= self.stop):
            return False
        if step < self.start + self.first:
            return True
        if callable(self.every):
            try:
                return bool(self.every(step))
            except Exception as error:
                raise OptionError(f"`every` raised {describe_error(error)} at step {step}") from error
        return self.every is not None and (step - self.start) % self.every == 0

    def is_due_between(self, after: int, last: int) -> bool:
        """Return whether a step after the first of these, up to the last one, is due."""
        if callable(self.every):
            # Where loops count samples, steps are far apart.
            return any(map(self.is_due, range(max(after + 1, last + 1 - _ASKED), last + 1)))
        if any(after < step <= last for step in self.steps):
            return True
        low = max(after + 1, self.start)
        high = last if self.stop is None else min(last, self.stop - 1)
        if low > high:
            return False
        if low < self.start + self.first:
            return True
        if self.every is None:
            return False
        return low + (self.start - low) % self.every <= high


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _require(fits: bool, name: str, value: object, expected: str) -> None:
    if not fits:
        raise OptionError(f"`{name}` is {value!r}; expected {expected}")
