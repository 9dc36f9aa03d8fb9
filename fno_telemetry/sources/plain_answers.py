"""What answers to the names of Python and NumPy in a pickle: plain values, which settings are made of."""

import argparse
import codecs
import pathlib
import re
from collections.abc import Mapping

import numpy as np

from fno_telemetry.sources.pickle_bounds import MOST_COPIED
from fno_telemetry.sources.pickled_objects import Answer, Name, StandIn
from fno_telemetry.sources.stored_arrays import LongBytes, NumberKind, StoredArray


def make_number(kind: object, data: object = b"", *_: object) -> object:
    """Return the Python number that a pickled NumPy scalar holds, or a stand-in for what is no number."""
    if (
        isinstance(kind, NumberKind)
        and isinstance(data, bytes)
        and re.fullmatch(r"[biufc]\d{1,2}", kind.code)
    ):
        value: object = np.frombuffer(data, dtype=np.dtype(kind.order + kind.code), count=1)[0].item()
        return value
    return StandIn("numpy.generic")


def make_buffer(*_: object) -> StandIn:
    """Return the stand-in for a NumPy array whose numbers are not in the pickle itself."""
    return StandIn("numpy.ndarray")


def make_bytes(text: object = b"", *_: object) -> object:
    """Return the bytes that a pickle of protocol 2 writes as text; long ones are not made yet."""
    if isinstance(text, str | bytes | bytearray) and len(text) <= MOST_COPIED:
        return codecs.encode(text, "latin-1") if isinstance(text, str) else bytes(text)
    return LongBytes(text) if isinstance(text, str | bytes) else StandIn("builtins.bytes")


def make_complex(real: float = 0.0, imaginary: float = 0.0) -> complex:
    """Return a complex number."""
    return complex(float(real), float(imaginary))


def make_path(kind: type[pathlib.PurePath], parts: tuple[object, ...]) -> pathlib.PurePath:
    """Return a path, of the system that it was made on."""
    return kind(*[part for part in parts if isinstance(part, str) and len(part) <= MOST_COPIED])


def make_object(kind: object = None, *_: object) -> StandIn:
    """Return the stand-in for an object that is made by a function of `copyreg`."""
    return StandIn(kind.path if isinstance(kind, Name) else "copyreg")


_NAMESPACE = Answer(lambda *_: argparse.Namespace())
_DICT = Answer(lambda *_: {})  # its items follow in the pickle
_ARRAY = Answer(StoredArray)
_BUFFER = Answer(make_buffer)
_NUMBER = Answer(make_number)
_PATHS = {
    "PosixPath": Answer(lambda *parts: make_path(pathlib.PurePosixPath, parts)),
    "WindowsPath": Answer(lambda *parts: make_path(pathlib.PureWindowsPath, parts)),
}

PLAIN_ANSWERS: Mapping[str, Answer] = {
    "argparse.Namespace": _NAMESPACE,
    "types.SimpleNamespace": _NAMESPACE,
    "collections.defaultdict": _DICT,
    "builtins.bytes": Answer(make_bytes),
    "builtins.bytearray": Answer(make_bytes),
    "_codecs.encode": Answer(make_bytes),
    "builtins.complex": Answer(make_complex),
    "copyreg._reconstructor": Answer(make_object),
    "copyreg.__newobj__": Answer(make_object),
    "copyreg.__newobj_ex__": Answer(make_object),
    "numpy.dtype": Answer(NumberKind),
    **{f"numpy.{core}.multiarray.scalar": _NUMBER for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray._reconstruct": _ARRAY for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _BUFFER for core in ("core", "_core")},
    **{
        f"{module}.{pure}{name}": answer
        for module in ("pathlib", "pathlib._local")
        for pure in ("", "Pure")
        for name, answer in _PATHS.items()
    },
}
"""Answers by dotted name; the modules of these names are not imported."""
