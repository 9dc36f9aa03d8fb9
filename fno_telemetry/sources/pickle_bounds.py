"""Bounds on what reading a pickle may take: a file of a few bytes can stand for billions of values."""

import argparse
from collections.abc import Iterator
from typing import Any

from fno_telemetry.sources.pickled_objects import PickleRefused

MOST_COPIED = 4096  # letters; answers do not copy longer text
_MOST_STEPS = 3_000_000  # a few seconds, for as many numbers outside of tensors
_MOST_REPEATED = 100_000  # values that are met again when every reference is followed
_DEEPEST = 64  # containers inside containers
_MOST_IN_A_KEY = 1000  # parts of a tuple that is a key: hashing it follows every reference
_LETTERS = 64  # of text that count as one part of such a tuple
_LONGEST_KEY = 4096  # letters; names of tensors are put together of the keys above them
_MOST_ODD_KEYS = 2000  # keys whose hashes can be chosen to be equal, at a quadratic cost
_PLAIN_INTEGER = 1 << 60  # below, no two integers have the same hash


class Effort:
    """The work that one reading has taken so far."""

    def __init__(self) -> None:
        self.steps = 0
        self._odd_keys = 0

    def spend(self, steps: int) -> None:
        """Count steps; PickleRefused when there are too many."""
        self.steps += steps
        if self.steps > _MOST_STEPS:
            raise PickleRefused(f"it holds more than {_MOST_STEPS} values outside of tensors")

    def spend_on_arguments(self, arguments: tuple[object, ...]) -> None:
        """Count what a function copies of its arguments, each time anew."""
        for argument in arguments:
            if isinstance(argument, str | bytes | bytearray):
                self.spend(min(len(argument), MOST_COPIED) // 16)
            elif isinstance(argument, dict | list | tuple | set | frozenset):
                self.spend(len(argument))

    def check_key(self, key: Any) -> Any:
        """Return a key whose hash takes little time, and which will rarely equal others'."""
        if isinstance(key, str | bytes) and len(key) > _LONGEST_KEY:
            raise PickleRefused(f"it has a key of more than {_LONGEST_KEY} letters")
        if isinstance(key, str | bytes | float) or (isinstance(key, int) and abs(key) < _PLAIN_INTEGER):
            return key
        if isinstance(key, tuple | frozenset | int | complex):
            self._odd_keys += 1
            if self._odd_keys > _MOST_ODD_KEYS:
                raise PickleRefused(f"more than {_MOST_ODD_KEYS} of its keys are neither text nor indices")
        left, pending = _MOST_IN_A_KEY, [key]
        while pending:
            part = pending.pop()
            if isinstance(part, str | bytes):
                left -= len(part) // _LETTERS
            elif isinstance(part, int):
                left -= part.bit_length() // _LETTERS
            elif isinstance(part, tuple | frozenset):
                left -= len(part)
                pending += part if left >= 0 else ()
            if left < 0:
                raise PickleRefused(f"it has a key of more than {_MOST_IN_A_KEY} parts")
        return key


def check_nesting(content: object, built: int) -> None:
    """Raise PickleRefused for content that nobody could go through: too deep, or repeated too often.

    `built` is how many values there are at most, each counted once.
    """
    visited = 0
    levels = [iter((content,))]
    while levels:
        for value in levels[-1]:
            visited += 1
            parts = _parts(value)
            if parts is not None:
                levels.append(parts)
                break
        else:
            levels.pop()
        if len(levels) > _DEEPEST:
            raise PickleRefused(f"its containers are nested more than {_DEEPEST} deep, or hold themselves")
        if visited > built + _MOST_REPEATED:
            raise PickleRefused(f"its references stand for more than {_MOST_REPEATED} repeated values")


def _parts(value: object) -> Iterator[Any] | None:
    """Return what a container holds; None for anything else. Keys were bounded when they were made."""
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    if isinstance(value, dict):
        return iter(value.values())
    return iter(value) if isinstance(value, list | tuple | set | frozenset) else None
