"""A report file read back: the record that it was written from, or one line that says what is wrong."""

import contextlib
import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from fno_telemetry.errors import OptionError, ReportError
from fno_telemetry.files import read_text
from fno_telemetry.findings import Finding
from fno_telemetry.quantities import Quantity
from fno_telemetry.records import (
    SCHEMA,
    AccuracyRecord,
    BlockRecord,
    CaptureRecord,
    FrozenMapping,
    Histogram,
    LogHistogram,
    ModeEnergy,
    ModuleRecord,
    ParameterRecord,
    SketchNote,
    Spectrum,
    TensorRecord,
    freeze_mapping,
)
from fno_telemetry.report.consistency import check_consistency
from fno_telemetry.report.schema import Misfit, check_document

_Part = TypeVar("_Part", Histogram, LogHistogram, ModeEnergy, SketchNote, Spectrum)

_NAMES: Mapping[type, Sequence[str]] = {
    kind: [field.name for field in dataclasses.fields(kind)]
    for kind in (Histogram, LogHistogram, ModeEnergy, SketchNote, Spectrum)
}
"""The fields of each part; looking them up anew for thousands of parts takes a fifth of all reading."""

_SCHEMA_NAME = re.compile(r"fno-telemetry/([0-9]{1,9})")
_REQUIRED = ("schema", "summary", "layers", "modules", "blocks")
_MOST_BYTES = 2**27  # a report of 15,000 module calls
# About what json.loads makes of a character: a file of brackets alone takes 30 times its size in memory.
_BYTES_PER_CHARACTER = {"{": 240, "[": 90, ",": 40, '"': 25}
_MOST_MEMORY = 2**28  # of a report with long numbers, as ours are, twice the size of the largest file
_MOST_DIGITS = 30  # of a whole number; products of several are still numbers that float64 has
_LONG_NUMBER = b"0" * (_MOST_DIGITS + 1)
_DIGITS_AS_ZEROS = bytes.maketrans(b"123456789", b"000000000")


def as_record(document: Mapping[str, Any]) -> CaptureRecord:
    """Return the record that `document` was made from; ReportError when it is not a report we can read.

    Keys that this version does not know are left alone, so that reports with additions stay readable.
    """
    number = _schema_number(document)
    missing = [key for key in _REQUIRED if key not in document]
    if missing:
        raise ReportError(f"not a whole report: it has no {', '.join(missing)}")
    try:
        check_document(document)
        record = CaptureRecord(
            schema=number,
            summary=freeze_mapping(document["summary"]),
            layers=FrozenMapping({name: tuple(values) for name, values in document["layers"].items()}),
            modules=tuple(_module(entry) for entry in document["modules"]),
            blocks=tuple(_block(entry) for entry in document["blocks"]),
            input=_optional(_tensor, document.get("input")),
            output=_optional(_tensor, document.get("output")),
            outputs=tuple(_tensor(entry) for entry in document.get("outputs", ())),
            inputs=tuple(_tensor(entry) for entry in document.get("inputs", ())),
            parameters=tuple(_parameter(entry) for entry in document.get("parameters", ())),
            accuracy=_optional(_accuracy, document.get("accuracy")),
            training=freeze_mapping(document.get("training", {})),
            quantities=tuple(_quantity(entry) for entry in document.get("quantities", ())),
            not_fired=tuple(FrozenMapping(entry) for entry in document.get("not_fired", ())),
            skipped=tuple(FrozenMapping(entry) for entry in document.get("skipped", ())),
            errors=tuple(FrozenMapping(entry) for entry in document.get("errors", ())),
            warnings=tuple(document.get("warnings", ())),
            findings=_optional(_findings, document.get("findings")),
            provenance=freeze_mapping(document.get("provenance", {})),
        )
        check_consistency(record)
    except (Misfit, OptionError) as error:
        raise ReportError(f"not a report of schema {number}: {error}") from error
    return record


def load_report(path: str | Path) -> CaptureRecord:
    """Read a report; equal to the record it was written from. ReportError says in a line what is wrong."""
    return as_record_from(path, read_document(path))


def read_document(path: str | Path) -> dict[str, Any]:
    """Read the JSON object in `path`, refusing what strict JSON does not allow."""
    hint = "; `fno-telemetry capture` writes reports"
    text = read_text(path, ReportError, "the file of one report", _MOST_BYTES, hint=hint)
    if _estimate_memory(text) > _MOST_MEMORY:
        raise ReportError(f"{path}: too many lists, objects and values for a report")
    try:
        document = _decode(text)
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path}: not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ReportError(f"{path}: a report is a JSON object, this is a {type(document).__name__}")
    return document


def _estimate_memory(text: str) -> int:
    """Return about how many bytes json.loads would take for a text; for a small one, a bound of that."""
    most = len(text) * max(_BYTES_PER_CHARACTER.values())
    if most <= _MOST_MEMORY:
        return most
    return sum(size * text.count(letter) for letter, size in _BYTES_PER_CHARACTER.items())


def _decode(text: str) -> Any:
    """Return what a text of strict JSON says; ValueError or RecursionError for any other text.

    What the fast reader refuses, or would read without a bound, is read again by one that says why in words.
    """
    with contextlib.suppress(msgspec.MsgspecError, ValueError, RecursionError):
        data = text.encode()
        # As bytes: a regular expression for so many digits takes longer than all the rest.
        if _LONG_NUMBER not in data.translate(_DIGITS_AS_ZEROS):
            return msgspec.json.decode(data)
    return json.loads(text, parse_constant=_refuse_constant, parse_float=_parse_float, parse_int=_parse_int)


def as_record_from(path: str | Path, document: Mapping[str, Any]) -> CaptureRecord:
    """`as_record` with the file named in the error."""
    try:
        return as_record(document)
    except ReportError as error:
        raise ReportError(f"{path}: {error}") from error


def _schema_number(document: Mapping[str, Any]) -> int:
    name = document.get("schema")
    match = _SCHEMA_NAME.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        raise ReportError('not an fno-telemetry report: its "schema" is not fno-telemetry/N')
    number = int(match[1])
    if number > SCHEMA:
        raise ReportError(
            f"written by a newer version (schema {number}, this one reads to {SCHEMA}): update fno-telemetry"
        )
    return number


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


def _optional(read: Any, entry: Any) -> Any:
    return None if entry is None else read(entry)


def _quantity(entry: Mapping[str, Any]) -> Quantity:
    known = {field.name for field in dataclasses.fields(Quantity)}
    return Quantity(**{name: value for name, value in entry.items() if name in known})


def _tensor_fields(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "item": entry["item"],
        "shape": tuple(entry["shape"]),
        "dtype": entry["dtype"],
        "spatial_axes": tuple(entry["spatial_axes"]),
        "values_of": entry["values_of"],
        "stats": FrozenMapping(entry["stats"]),
        "reasons": FrozenMapping(entry.get("reasons", {})),
        "histogram": _part(Histogram, entry.get("histogram")),
        "log_histogram": _part(LogHistogram, entry.get("log_histogram")),
        "spectrum": _part(Spectrum, entry.get("spectrum")),
        "sketch": _part(SketchNote, entry.get("sketch")),
    }


def _tensor(entry: Mapping[str, Any]) -> TensorRecord:
    return TensorRecord(**_tensor_fields(entry))


def _module(entry: Mapping[str, Any]) -> ModuleRecord:
    own = {key: entry[key] for key in ("name", "call", "order", "parent", "role")}
    energy = _part(ModeEnergy, entry.get("mode_energy"))
    return ModuleRecord(**_tensor_fields(entry), **own, class_name=entry["class"], mode_energy=energy)


def _block(entry: Mapping[str, Any]) -> BlockRecord:
    return BlockRecord(
        name=entry["name"],
        call=entry["call"],
        spectral=tuple(entry["spectral"]),
        local=tuple(entry["local"]),
        stats=FrozenMapping(entry["stats"]),
        reasons=FrozenMapping(entry.get("reasons", {})),
    )


def _parameter(entry: Mapping[str, Any]) -> ParameterRecord:
    return ParameterRecord(
        name=entry["name"],
        shape=tuple(entry["shape"]),
        dtype=entry["dtype"],
        stats=FrozenMapping(entry["stats"]),
        reasons=FrozenMapping(entry["reasons"]),
    )


def _accuracy(entry: Mapping[str, Any]) -> AccuracyRecord:
    return AccuracyRecord(stats=FrozenMapping(entry["stats"]), reasons=FrozenMapping(entry["reasons"]))


def _findings(entries: list[Mapping[str, Any]]) -> tuple[Finding, ...]:
    names = [field.name for field in dataclasses.fields(Finding) if field.name != "evidence"]
    return tuple(
        Finding(**{name: entry[name] for name in names}, evidence=freeze_mapping(entry["evidence"]))
        for entry in entries
    )


def _part(kind: type[_Part], entry: Mapping[str, Any] | None) -> _Part | None:
    """Return a dataclass of numbers and lists, with tuples for lists; quicker than `freeze` for so many."""
    if entry is None:
        return None
    make: Callable[..., _Part] = kind
    values = map(entry.__getitem__, _NAMES[kind])
    return make(*[_tupled(value) if isinstance(value, list) else value for value in values])


def _tupled(value: list[Any]) -> tuple[Any, ...]:
    return tuple(map(_tupled, value)) if value and isinstance(value[0], list) else tuple(value)
