"""The state of arrays, bytes, generators of random numbers, iterators and files."""

import array
import io
import itertools
import operator
import random
import types
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from fno_telemetry.isolation.contents import Contents, watch
from fno_telemetry.isolation.tensor_values import CopyBudget


def keep_values(value: object, budget: CopyBudget) -> Contents | None:
    """Return the values of an array or buffer of bytes, if the budget allows the copy."""
    match value:
        case bytearray() | array.array():
            if budget.take(memoryview(value).nbytes):
                before = bytes(value)
                return Contents(partial(bytes, value), before, partial(_write_bytes, value, before))
        case np.ndarray() if value.flags.writeable and budget.take(value.nbytes):
            read: Callable[[], Any] = value.tobytes
            if value.dtype.hasobject:
                read = partial(_read_objects, value)
            return Contents(read, read(), partial(np.copyto, value, value.copy()))
    return None


def keep_random_state(value: object) -> Contents | None:
    """Return the state of a generator of random numbers."""
    match value:
        case random.Random():
            return Contents(value.getstate, value.getstate(), partial(value.setstate, value.getstate()))
        case np.random.RandomState() | np.random.Generator():
            bits: Any = (
                value._bit_generator if isinstance(value, np.random.RandomState) else value.bit_generator
            )
            return Contents(
                lambda: repr(bits.state), repr(bits.state), partial(setattr, bits, "state", bits.state)
            )
        case torch.Generator():
            drawn = value.get_state()
            return Contents(
                lambda: value.get_state().numpy().tobytes(),
                drawn.numpy().tobytes(),
                partial(value.set_state, drawn),
            )
    return None


def keep_position(value: object) -> Contents | None:
    """Return how far an iterator or a file has come, which for most of them can only be told."""
    match value:
        case io.StringIO() | io.BytesIO():
            return _keep_stream(value)
        case io.IOBase():
            return watch(partial(_position_in_file, value))
        case types.GeneratorType():
            return watch(partial(_position_in_generator, value))
        case itertools.count() | itertools.repeat():
            return watch(partial(repr, value))
        case enumerate():
            return watch(lambda: value.__reduce__()[1][1])
        case Iterator() if hasattr(value, "__setstate__") and hasattr(value, "__length_hint__"):
            # Iterators over lists, tuples, ranges, …; one that came to its end does not start again.
            position = value.__reduce__()[-1]
            return Contents(
                partial(operator.length_hint, value),
                operator.length_hint(value),
                partial(value.__setstate__, position),
            )
    return None


def _keep_stream(value: io.StringIO | io.BytesIO) -> Contents | None:
    if value.closed:
        return None
    state: Any = value.__getstate__()
    return Contents(
        lambda: () if value.closed else value.__getstate__()[:-1],  # type: ignore[index]
        state[:-1],
        lambda: value.closed or value.__setstate__(state),  # type: ignore[union-attr]
    )


def _position_in_generator(value: "types.GeneratorType[Any, Any, Any]") -> list[Any]:
    """Return the line that a generator is at, its variables, and the positions of iterators in them."""
    if value.gi_frame is None:
        return []
    variables = [*value.gi_frame.f_locals.values()]
    left = [operator.length_hint(one, -1) for one in variables if isinstance(one, Iterator)]
    return [value.gi_frame.f_lasti, *variables, *left]


def _position_in_file(value: io.IOBase) -> int:
    try:
        return -1 if value.closed else value.tell()
    except (OSError, ValueError):
        return -2  # a terminal or a pipe has no position


def _read_objects(value: np.ndarray[Any, Any]) -> list[Any]:
    return [*value.flat]


def _write_bytes(value: "bytearray | array.array[Any]", before: bytes) -> None:
    if memoryview(value).nbytes == len(before):
        # Also while a view of it forbids another size.
        memoryview(value).cast("B")[:] = before
        return
    del value[:]
    if isinstance(value, bytearray):
        value.extend(before)
    else:
        value.frombytes(before)
