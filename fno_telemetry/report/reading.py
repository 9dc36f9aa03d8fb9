"""A report file read back: the record that it was written from, or one line that says what is wrong."""

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from fno_telemetry.errors import OptionError, ReportError
from fno_telemetry.files import read_text
from fno_telemetry.findings import Finding
from fno_telemetry.quantities import Quantity
from fno_telemetry.records import (
    SCHEMA,
    AccuracyRecord,
    BandAccuracy,
    BlockRecord,
    CaptureRecord,
    FrozenMapping,
    Histogram,
    LogHistogram,
    ModeEnergy,
    ModuleRecord,
    OrderCoherence,
    ParameterRecord,
    ResolutionRecord,
    SketchNote,
    Spectrum,
    TensorRecord,
    ValueSample,
    freeze,
    freeze_mapping,
)
from fno_telemetry.report.consistency import check_consistency
from fno_telemetry.report.schema import Misfit, check_document
from fno_telemetry.report.strict_json import MOST_BYTES, TooLarge, decode

_Part = TypeVar(
    "_Part",
    BandAccuracy,
    Histogram,
    LogHistogram,
    ModeEnergy,
    ResolutionRecord,
    SketchNote,
    Spectrum,
    ValueSample,
)

_NAMES: Mapping[type, Collection[str]] = {
    kind: frozenset(field.name for field in dataclasses.fields(kind))
    for kind in (
        BandAccuracy,
        Histogram,
        LogHistogram,
        ModeEnergy,
        ResolutionRecord,
        SketchNote,
        Spectrum,
        ValueSample,
    )
}
"""The fields of each part; looking them up anew for thousands of parts takes a fifth of all reading."""

_SCHEMA_NAME = re.compile(r"fno-telemetry/([0-9]{1,9})")
_REQUIRED = ("schema", "summary", "layers", "modules", "blocks")


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
            target=_optional(_tensor, document.get("target")),
            accuracy=_optional(_accuracy, document.get("accuracy")),
            resolution=_part(ResolutionRecord, document.get("resolution")),
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
    try:
        return as_record_from(path, read_document(path))
    except ReportError as error:
        hint = "; `ft.load_history` reads histories" if Path(path).suffix == ".jsonl" else ""
        raise ReportError(f"{error}{hint}") from error


def read_document(path: str | Path) -> dict[str, Any]:
    """Read the JSON object in `path`, refusing what strict JSON does not allow."""
    hint = "; `fno-telemetry capture` writes reports"
    text = read_text(path, ReportError, "the file of one report", MOST_BYTES, hint=hint)
    try:
        document = decode(text)
    except TooLarge as error:
        raise ReportError(f"{path}: {error} for a report") from error
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path}: not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ReportError(f"{path}: a report is a JSON object, this is a {type(document).__name__}")
    return document


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
        "channel_rms": _optional(tuple, entry.get("channel_rms")),
        "process_extremes": _optional(_tupled, entry.get("process_extremes")),
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
        digest=entry.get("digest"),
        sample=_part(ValueSample, entry.get("sample")),
    )


def _accuracy(entry: Mapping[str, Any]) -> AccuracyRecord:
    return AccuracyRecord(
        stats=FrozenMapping(entry["stats"]),
        reasons=FrozenMapping(entry["reasons"]),
        bands=_part(BandAccuracy, entry.get("bands")),
        channels=_optional(tuple, entry.get("channels")),
        orders=_optional(_orders, entry.get("orders")),
    )


def _orders(entries: list[Mapping[str, Any]]) -> tuple[OrderCoherence, ...]:
    names = [each.name for each in dataclasses.fields(OrderCoherence)]
    return tuple(OrderCoherence(**{name: freeze(entry[name]) for name in names}) for entry in entries)


def _findings(entries: list[Mapping[str, Any]]) -> tuple[Finding, ...]:
    # Reports of earlier versions do not say what would confirm a finding.
    names = [each.name for each in dataclasses.fields(Finding) if each.name not in ("evidence", "confirm")]
    return tuple(
        Finding(
            **{name: entry[name] for name in names},
            evidence=freeze_mapping(entry["evidence"]),
            confirm=entry.get("confirm", ""),
        )
        for entry in entries
    )


def _part(kind: type[_Part], entry: Mapping[str, Any] | None) -> _Part | None:
    """Return a dataclass of numbers and lists, with tuples for lists; quicker than `freeze` for so many."""
    if entry is None:
        return None
    make: Callable[..., _Part] = kind
    names = _NAMES[kind]
    # Earlier versions did not write those that have a default.
    return make(
        **{
            name: _tupled(value) if isinstance(value, list) else value
            for name, value in entry.items()
            if name in names
        }
    )


def _tupled(value: list[Any]) -> tuple[Any, ...]:
    return tuple(map(_tupled, value)) if value and isinstance(value[0], list) else tuple(value)
