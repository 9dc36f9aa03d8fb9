"""A record as one line of a history: strict JSON that is small enough for every step of a training, and back.

Each line can be read without the others. It has the keys of a report, with three differences:

- `layers`, the flat form of the earlier script, is left out.
- What entries share is written once, in the tables `names`, `edges` and `reasons`, to which they refer by
  index. `stats` is a list: the index of its names, then a value for each. The edges of `log_histogram` and of
  all bands are an index, each reason is one, and `input` and `output` are one into `inputs` and
  `outputs`. What is null, the first call, and zeros at both ends of the counts of `log_histogram` are not
  written; `from` is the index of the first count that is.
- The numbers of entries have DIGITS significant digits; whole numbers have all. The edges of a `histogram`,
  which are float32 numbers with few bits, are exact: of the places of all such numbers in ascending order,
  with zero at 0, `first` and then `steps` to the next, both divided by two to the power `shift`.
"""

import functools
import json
import math
import operator
import struct
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

from fno_telemetry.errors import ReportError
from fno_telemetry.records import CaptureRecord
from fno_telemetry.report.documents import as_document
from fno_telemetry.report.reading import as_record
from fno_telemetry.report.strict_json import decode

SCHEMA = "fno-telemetry-history/1"
"""The schema of the lines that this version writes."""

DIGITS = 7
"""Significant digits: a relative error of at most 5e-7."""

_NAME, _, _NUMBER = SCHEMA.rpartition("/")

BEGINNING = f'{{"schema":"{_NAME}/'.encode()
"""What every line begins with."""

_TABLES = ("names", "edges", "reasons")
_SIDES = {"input": "inputs", "output": "outputs"}
_LEFT_OUT_OF_MODULES = {"item": None, "call": 0, "parent": None}
_BITS = 32  # of an edge
_MAGNITUDE_BITS = 0x7FFFFFFF
_MOST_SHARED = 2**22  # values that entries of one line take from its tables of edges


def as_line(record: CaptureRecord) -> bytes:
    """Return the record as one line, with its line break."""
    document = as_document(record)
    tables = _Tables()
    for key in ("modules", "inputs", "outputs"):
        document[key] = [tables.pack_tensor(entry) for entry in document[key]]
    for key in ("blocks", "parameters"):
        document[key] = [tables.pack_entry(entry) for entry in document.get(key, ())]
    if document.get("accuracy") is not None:
        document["accuracy"] = tables.pack_entry(document["accuracy"])
    if document.get("target") is not None:
        document["target"] = tables.pack_tensor(document["target"])
    for side, every in _SIDES.items():
        if document[side] is not None:
            packed = tables.pack_tensor(document[side])
            document[side] = document[every].index(packed) if packed in document[every] else packed
    first = ("summary", "training")
    line = {
        "schema": SCHEMA,
        "report": document["schema"],
        **{key: document[key] for key in first if key in document},
        **tables.as_lists(),
        **{key: value for key, value in document.items() if key not in ("schema", "layers", *first)},
    }
    text = json.dumps(line, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    # Lone surrogates (from file names that are not UTF-8) become \udcXX, which is how JSON writes them.
    return text.encode("utf-8", "backslashreplace") + b"\n"


def read_line(line: bytes) -> CaptureRecord:
    """Return the record of a line, with or without its line break; ReportError for what is none."""
    try:
        packed = decode(line.decode())
    except (ValueError, RecursionError) as error:
        raise ReportError(f"not JSON: {error}") from error
    check_schema(packed.get("schema") if isinstance(packed, dict) else None)
    try:
        document = _unpack(packed)
    except (LookupError, TypeError, ValueError, AttributeError, struct.error) as error:
        raise ReportError(f"not a whole record of a history: {type(error).__name__}: {error}") from error
    return as_record(document)


def check_schema(name: object) -> None:
    """Raise ReportError unless this is the schema of lines that this version can read."""
    begun, _, number = name.rpartition("/") if isinstance(name, str) else ("", "", "")
    if begun != _NAME or not (number.isascii() and number.isdecimal() and len(number) < 10):
        raise ReportError(f'not a history of records: its "schema" is not {_NAME}/N')
    if int(number) > int(_NUMBER):
        raise ReportError(
            f"written by a newer version (schema {number}, this one reads to {_NUMBER}): update fno-telemetry"
        )


class _Tables:
    """What the entries of a line share: each written once, in the order in which it appears."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, ...], int] = {}
        self._edges: dict[tuple[float, ...], int] = {}
        self._reasons: dict[str, int] = {}

    def as_lists(self) -> dict[str, list[Any]]:
        return {"names": list(self._names), "edges": list(self._edges), "reasons": list(self._reasons)}

    def pack_entry(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Return an entry with its statistics and reasons as this module's text says."""
        return {
            key: self._pack(key, value)
            for key, value in entry.items()
            if key == "stats" or value not in (None, {})
        }

    def pack_tensor(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        told = {
            key: value
            for key, value in entry.items()
            if key not in _LEFT_OUT_OF_MODULES or value != _LEFT_OUT_OF_MODULES[key]
        }
        return self.pack_entry(told)

    def _pack(self, key: str, value: Any) -> Any:
        if key == "stats":
            return [_index(self._names, tuple(value)), *map(_shorten, value.values())]
        if key == "reasons":
            return {name: _index(self._reasons, reason) for name, reason in value.items()}
        if key == "histogram":
            return {**value, "edges": _pack_edges(value["edges"])}
        if key == "log_histogram":
            counts = value["counts"]
            filled = [index for index, count in enumerate(counts) if count] or [0]
            kept = {"from": filled[0], "counts": counts[filled[0] : filled[-1] + 1]}
            return {**value, "edges": self._refer(value["edges"]), **kept}
        if key == "bands":
            return {**_shorten(value), "band_edges": self._refer(value["band_edges"])}
        if key == "spectrum":
            edges = {name: self._refer(value[name]) for name in ("band_edges", "axis_band_edges")}
            return {**_shorten(value), **edges}
        return _shorten(value)

    def _refer(self, edges: Sequence[float]) -> int:
        return _index(self._edges, tuple(edges))


def _index(table: dict[Any, int], value: Any) -> int:
    return table.setdefault(value, len(table))


def _shorten(value: Any) -> Any:
    """Return a value with the floats in it rounded."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, list):
        return [_shorten(item) for item in value]
    return {key: _shorten(item) for key, item in value.items()} if isinstance(value, dict) else value


def _pack_edges(edges: Sequence[float]) -> dict[str, Any] | list[float]:
    """Return float32 numbers as the distances between their places in order; others as they are."""
    try:
        patterns = struct.unpack(f"<{len(edges)}i", struct.pack(f"<{len(edges)}f", *edges))
    except OverflowError:  # the end of the range of float32
        return list(edges)
    places = list(map(_mirror, patterns))
    if _at_places(places) != list(edges):
        return list(edges)
    together = functools.reduce(operator.or_, places)
    shift = (together & -together).bit_length() - 1 if together else 0
    steps = [(after - before) >> shift for before, after in pairwise(places)]
    return {"shift": shift, "first": places[0] >> shift, "steps": steps}


def _unpack_edges(packed: dict[str, Any] | list[float]) -> list[float]:
    if isinstance(packed, list):
        return packed
    shift = packed["shift"]
    if not 0 <= shift < _BITS:
        raise ValueError(f"a shift by {shift} bits")
    edges = _at_places([place << shift for place in accumulate([packed["first"], *packed["steps"]])])
    if not all(map(math.isfinite, edges)):
        raise ValueError("an edge of a histogram is not finite")
    return edges


def _at_places(places: Sequence[int]) -> list[float]:
    """Return the float32 numbers at these places among all, of which zero is at 0."""
    patterns = struct.pack(f"<{len(places)}i", *map(_mirror, places))
    return list(struct.unpack(f"<{len(places)}f", patterns))


def _mirror(number: int) -> int:
    """Return the place of the float32 number with these bits, or its bits: those of negative ones descend."""
    return number if number >= 0 else number ^ _MAGNITUDE_BITS


def _unpack(packed: dict[str, Any]) -> dict[str, Any]:
    """Return the document of a report; for other than a packed record, any of the errors of plain lookups."""
    unpacking = _Unpacking(*(packed[table] for table in _TABLES))
    document = {key: value for key, value in packed.items() if key not in _TABLES}
    document |= {"schema": packed["report"], "layers": {}}
    del document["report"]
    tensors = {key: [unpacking.unpack_tensor(entry) for entry in packed[key]] for key in _SIDES.values()}
    document |= tensors
    document["modules"] = [
        {**_LEFT_OUT_OF_MODULES, **unpacking.unpack_tensor(entry)} for entry in packed["modules"]
    ]
    for key in ("blocks", "parameters"):
        document[key] = [unpacking.unpack_entry(entry) for entry in packed[key]]
    if packed.get("accuracy") is not None:
        document["accuracy"] = unpacking.unpack_accuracy(packed["accuracy"])
    if packed.get("target") is not None:
        document["target"] = unpacking.unpack_tensor(packed["target"])
    for side, every in _SIDES.items():
        value = packed[side]
        if isinstance(value, int):
            document[side] = tensors[every][value]
        elif value is not None:
            document[side] = unpacking.unpack_tensor(value)
    return document


class _Unpacking:
    """Puts what entries share back into them."""

    def __init__(
        self, names: Sequence[Sequence[str]], edges: Sequence[Sequence[float]], reasons: Sequence[str]
    ) -> None:
        self._names, self._edges, self._reasons = names, edges, reasons
        self._room = _MOST_SHARED

    def unpack_entry(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        index, *values = entry["stats"]
        stats = dict(zip(self._names[index], values, strict=True))
        reasons = {name: self._reasons[index] for name, index in entry.get("reasons", {}).items()}
        return {**entry, "stats": stats, "reasons": reasons}

    def unpack_accuracy(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        whole = self.unpack_entry(entry)
        if (found := entry.get("bands")) is not None:
            whole["bands"] = {**found, "band_edges": self._take(found["band_edges"])}
        return whole

    def unpack_tensor(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        whole = {"item": None, **self.unpack_entry(entry)}
        if (found := entry.get("histogram")) is not None:
            whole["histogram"] = {**found, "edges": _unpack_edges(found["edges"])}
        if (found := entry.get("log_histogram")) is not None:
            edges = self._take(found["edges"])
            before, counts = found["from"], found["counts"]
            if not 0 <= before <= len(edges) - 1 - len(counts):
                raise ValueError("the counts of a log_histogram reach beyond its edges")
            after = len(edges) - 1 - len(counts) - before
            rest = {key: value for key, value in found.items() if key != "from"}
            whole["log_histogram"] = {
                **rest,
                "edges": edges,
                "counts": [*[0] * before, *counts, *[0] * after],
            }
        if (found := entry.get("spectrum")) is not None:
            edges_by_name = {name: self._take(found[name]) for name in ("band_edges", "axis_band_edges")}
            whole["spectrum"] = {**found, **edges_by_name}
        return whole

    def _take(self, index: int) -> Sequence[float]:
        """Return edges by their index; ValueError where a small line would fill the memory."""
        edges = self._edges[index]
        self._room -= len(edges)
        if self._room < 0:
            raise ValueError(f"more than {_MOST_SHARED:,} edges")
        return edges
