"""NumPy arrays in a pickle: noted as they are read, made into tensors only where they are weights."""

import re
from functools import cached_property
from typing import Any

import numpy as np
import torch


class NumberKind:
    """Replaces a NumPy dtype: its code, such as "f8", and its byte order."""

    def __init__(self, code: object = "", *_: object) -> None:
        self.code = code if isinstance(code, str) else ""
        self.order = "="

    def take_state(self, state: object) -> None:
        """Take the byte order alone: a dtype's own state can describe memory that is not there."""
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">"):
            self.order = state[1]


class LongBytes:
    """Bytes that a pickle of protocol 2 writes as text; they are only made when they are wanted."""

    def __init__(self, text: str | bytes) -> None:
        self._text = text

    @cached_property
    def content(self) -> bytearray:
        """The bytes, made once however many arrays are said to consist of them."""
        return bytearray(self._text.encode("latin-1") if isinstance(self._text, str) else self._text)


class StoredArray:
    """Replaces a NumPy array: its shape, its kind of numbers and its bytes."""

    name = "numpy.ndarray"

    def __init__(self, *_: object) -> None:
        self._state: tuple[Any, ...] = ()

    def take_state(self, state: object) -> None:
        """Note what the array consists of."""
        self._state = state if isinstance(state, tuple) else ()

    def to_tensor(self) -> torch.Tensor:
        """Return the numbers; ValueError or TypeError where there are none."""
        _, shape, kind, in_columns, data = self._state
        if not isinstance(kind, NumberKind) or not re.fullmatch(r"[biufc]\d{1,2}", kind.code):
            raise TypeError("the array holds no numbers")
        held = data.content if isinstance(data, LongBytes) else bytearray(data)
        values = np.frombuffer(held, np.dtype(kind.order + kind.code))
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        return torch.from_numpy(values.reshape(shape, order="F" if in_columns else "C"))
