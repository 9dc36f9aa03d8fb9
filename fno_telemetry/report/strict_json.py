"""Strict JSON text decoded within bounds of memory, depth and digits."""

import contextlib
import json
import math
from typing import Any

import msgspec

MOST_BYTES = 2**27
"""Of the text of one record: a report of 15,000 module calls."""

MOST_MEMORY = 2**28
"""Of a report with long numbers, as ours are, twice the size of the largest file."""

# About what json.loads makes of a character: a file of brackets alone takes 30 times its size in memory.
_BYTES_PER_CHARACTER = {"{": 240, "[": 90, ",": 40, '"': 25}
_MOST_DIGITS = 30  # of a whole number; products of several are still numbers that float64 has
_LONG_NUMBER = b"0" * (_MOST_DIGITS + 1)
_DIGITS_AS_ZEROS = bytes.maketrans(b"123456789", b"000000000")


class TooLarge(ValueError):
    """A text that would fill the memory."""


def decode(text: str) -> Any:
    """Return what a text of strict JSON says; ValueError or RecursionError for any other text.

    TooLarge, before anything is made of it, for one that would fill the memory.
    What the fast reader refuses, or would read without a bound, is read again by one that says why in words.
    """
    if _estimate_memory(text) > MOST_MEMORY:
        raise TooLarge("too many lists, objects and values")
    with contextlib.suppress(msgspec.MsgspecError, ValueError, RecursionError):
        data = text.encode()
        # As bytes: a regular expression for so many digits takes longer than all the rest.
        if _LONG_NUMBER not in data.translate(_DIGITS_AS_ZEROS):
            return msgspec.json.decode(data)
    return json.loads(text, parse_constant=_refuse_constant, parse_float=_parse_float, parse_int=_parse_int)


def _estimate_memory(text: str) -> int:
    """Return about how many bytes json.loads would take for a text; for a small one, a bound of that."""
    most = len(text) * max(_BYTES_PER_CHARACTER.values())
    if most <= MOST_MEMORY:
        return most
    return sum(size * text.count(letter) for letter, size in _BYTES_PER_CHARACTER.items())


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not strict JSON")


def _parse_float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:_MOST_DIGITS]} is beyond float64")
    return number


def _parse_int(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a whole number has {len(digits)} digits; expected {_MOST_DIGITS} at most")
    return int(digits)
