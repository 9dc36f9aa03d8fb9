"""The header of an .npy stream, read without numpy's loader, so that no path leads to unpickling.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import ast
import math
import re
import struct
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from fno_telemetry.errors import InputError

MAGIC = b"\x93NUMPY"
_LENGTH_FORMATS = {1: "<H", 2: "<I", 3: "<I"}
_LONGEST = 4096  # bytes; plain numbers need about 128, and a parser should not be fed more from a stranger
_NUMBER = re.compile(r"[<>=|]?[fiuc]\d{1,2}")
_REFUSED = {
    "O": "Python objects, which only unpickling could read, and that can run code",
    "b": "booleans",
    "?": "booleans",
    "S": "text",
    "a": "text",
    "U": "text",
    "T": "text",
    "V": "raw bytes without a number type",
    "M": "dates",
    "m": "time differences",
}


@dataclass(frozen=True)
class NpyHeader:
    """What an .npy stream says about the numbers that follow."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    length: int  # bytes from the start of the stream to the first number

    @property
    def data_bytes(self) -> int:
        """Size of the numbers, in bytes, as an exact integer however large the claim is."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(stream: IO[bytes], size: int, where: str) -> NpyHeader:
    """Read the header of a stream of `size` bytes, leaving it at the first number.

    Raises InputError when it is damaged, holds no plain numbers, or promises other than what follows.
    """
    lead = _take(stream, len(MAGIC) + 2, where)
    if not lead.startswith(MAGIC):
        raise InputError(f"{where}: is not a NumPy array; save it with numpy.save or numpy.savez.")
    length_format = _LENGTH_FORMATS.get(lead[-2])
    if length_format is None:
        raise InputError(
            f"{where}: uses .npy version {lead[-2]}, which is not known; save it with numpy.save."
        )
    (text_length,) = struct.unpack(length_format, _take(stream, struct.calcsize(length_format), where))
    if text_length > _LONGEST:
        raise InputError(
            f"{where}: its header claims {text_length} bytes, so it is damaged or holds records; "
            f"save one plain float32 array with numpy.save."
        )
    fields = _parse(_take(stream, text_length, where), where)
    shape, fortran_order = fields["shape"], fields["fortran_order"]
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise InputError(
            f"{where}: its header holds an impossible shape: {shape!r:.60}; save the array again."
        )
    if type(fortran_order) is not bool:
        raise InputError(
            f"{where}: its header holds an impossible order of the numbers: {fortran_order!r:.60}; save the "
            "array again."
        )
    length = len(lead) + struct.calcsize(length_format) + text_length
    header = NpyHeader(shape, _number_type(fields["descr"], where), fortran_order, length)
    present = size - length
    if header.data_bytes != present:
        promised = header.data_bytes if header.data_bytes < 2**63 else "over 2^63"
        raise InputError(
            f"{where}: its header promises {promised} bytes (shape {shape!s:.60}, {header.dtype}), "
            f"but {present} follow; the file is cut short or damaged, copy or save it again."
        )
    return header


def _take(stream: IO[bytes], count: int, where: str) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise InputError(f"{where}: ends inside its .npy header; copy or save the file again.")
    return data


def _parse(raw: bytes, where: str) -> dict[str, Any]:
    text = raw.decode("latin1")
    fields: object = None
    # Python 2 wrote sizes as 10L.
    for candidate in (text, re.sub(r"(\d)L\b", r"\1", text)):
        try:
            fields = ast.literal_eval(candidate)
            break
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    if not isinstance(fields, dict) or fields.keys() != {"descr", "fortran_order", "shape"}:
        raise InputError(f"{where}: its .npy header cannot be understood; copy or save the file again.")
    return fields


def _number_type(descr: object, where: str) -> np.dtype[Any]:
    """The dtype of plain integers, floats or complex numbers; everything else is refused by what it holds."""
    if isinstance(descr, str) and _NUMBER.fullmatch(descr):
        try:
            return np.dtype(descr)
        except TypeError:
            raise InputError(
                f"{where}: holds {descr}, a number type not known here; save it as float32."
            ) from None
    if isinstance(descr, str):
        letter = descr.lstrip("<>=|")[:1]
        held = _REFUSED.get(letter, f"{ascii(descr)[:60]}, a type not known here")
    else:
        held = "records with named fields"
    raise InputError(f"{where}: holds {held}; save the numbers as one plain float32 array.")
