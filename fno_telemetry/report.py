"""The report file: a record as strict JSON and back, written whole or not at all."""

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path, PurePath
from typing import Any, cast

from fno_telemetry.errors import OptionError, ReportError
from fno_telemetry.files import whole_file
from fno_telemetry.findings import Finding
from fno_telemetry.quantities import Quantity
from fno_telemetry.records import (
    SCHEMA,
    BlockRecord,
    CaptureRecord,
    FrozenMapping,
    Histogram,
    LogHistogram,
    ModeEnergy,
    ModuleRecord,
    SketchNote,
    Spectrum,
    TensorRecord,
    freeze_mapping,
)

_SCHEMA_NAME = re.compile(r"fno-telemetry/(\d+)")
_REQUIRED = ("schema", "summary", "layers", "modules", "blocks")


def as_document(record: CaptureRecord) -> dict[str, Any]:
    """Return the record as plain lists, dicts, strings and finite numbers, ready for any JSON writer."""
    document = {"schema": f"fno-telemetry/{record.schema}"}
    for field in dataclasses.fields(record):
        # Findings are there when somebody looked for them, quantities when packages bring their own.
        left_out = {"schema": True, "findings": record.findings is None, "quantities": not record.quantities}
        if not left_out.get(field.name):
            document[field.name] = _plain(getattr(record, field.name))
    return document


def as_record(document: Mapping[str, Any]) -> CaptureRecord:
    """Return the record that `document` was made from; ReportError when it is not a report we can read.

    Keys that this version does not know are left alone, so that reports with additions stay readable.
    """
    number = _schema_number(document)
    missing = [key for key in _REQUIRED if key not in document]
    if missing:
        raise ReportError(f"not a whole report: it has no {', '.join(missing)}")
    try:
        return CaptureRecord(
            schema=number,
            summary=freeze_mapping(document["summary"]),
            layers=FrozenMapping({name: tuple(values) for name, values in document["layers"].items()}),
            modules=tuple(_module(entry) for entry in document["modules"]),
            blocks=tuple(_block(entry) for entry in document["blocks"]),
            input=_optional(_tensor, document.get("input")),
            output=_optional(_tensor, document.get("output")),
            outputs=tuple(_tensor(entry) for entry in document.get("outputs", ())),
            inputs=tuple(_tensor(entry) for entry in document.get("inputs", ())),
            quantities=tuple(_quantity(entry) for entry in document.get("quantities", ())),
            not_fired=tuple(FrozenMapping(entry) for entry in document.get("not_fired", ())),
            skipped=tuple(FrozenMapping(entry) for entry in document.get("skipped", ())),
            errors=tuple(FrozenMapping(entry) for entry in document.get("errors", ())),
            warnings=tuple(document.get("warnings", ())),
            findings=_optional(_findings, document.get("findings")),
            provenance=freeze_mapping(document.get("provenance", {})),
        )
    except OptionError as error:
        raise ReportError(f"not a report of schema {number}: {error}") from error
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise ReportError(f"not a report of schema {number}: {type(error).__name__}: {error}") from error


def dumps(document: Mapping[str, Any]) -> str:
    """Return strict JSON: UTF-8 text, no NaN or Infinity (ReportError if one got this far)."""
    try:
        return json.dumps(document, allow_nan=False, ensure_ascii=False, indent=1) + "\n"
    except ValueError as error:
        raise ReportError(f"the report holds a number that JSON does not have: {error}") from error


def write(record: CaptureRecord, path: str | Path) -> None:
    """Write the report to `path`, whole or not at all; the folder is made if it is missing."""
    with whole_file(path) as part:
        # Lone surrogates (from file names that are not UTF-8) become \udcXX, which is how JSON writes them.
        part.write_bytes(dumps(as_document(record)).encode("utf-8", "backslashreplace"))


def load_report(path: str | Path) -> CaptureRecord:
    """Read a report; equal to the record it was written from. ReportError says in a line what is wrong."""
    return as_record_from(path, read_document(path))


def read_document(path: str | Path) -> dict[str, Any]:
    """Read the JSON object in `path`, refusing what strict JSON does not allow."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        document = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except FileNotFoundError:
        raise ReportError(f"{path}: no such file; `fno-telemetry capture` writes reports") from None
    except IsADirectoryError:
        raise ReportError(f"{path}: a folder; expected the file of one report in it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"{path}: cannot be read: {error}") from error
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


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema that every report satisfies."""
    text = resources.files("fno_telemetry").joinpath("report.schema.json").read_text(encoding="utf-8")
    return cast(dict[str, Any], json.loads(text))


def series_report_name(name: str, label: str) -> str:
    """Return the name of one report of several: `activation_report.json`, `activation_report.step1000.json`.

    The label comes before the ending, so that the reports of a series are listed together.
    """
    path = PurePath(name)
    return f"{path.stem}.{label}{path.suffix}"


def _plain(value: Any) -> Any:
    if isinstance(value, ModuleRecord):
        entry = {
            "name": value.name,
            "call": value.call,
            "item": value.item,
            "order": value.order,
            "parent": value.parent,
            "class": value.class_name,
            "role": value.role,
        }
        rest = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(TensorRecord)}
        return entry | rest | {"mode_energy": _plain(value.mode_energy)}
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ReportError(f"a report cannot hold a {type(value).__name__}")


def _schema_number(document: Mapping[str, Any]) -> int:
    match = _SCHEMA_NAME.fullmatch(str(document.get("schema")))
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


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits} is beyond float64")
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
        "histogram": _optional(lambda e: Histogram(**_tuples(e)), entry.get("histogram")),
        "log_histogram": _optional(lambda e: LogHistogram(**_tuples(e)), entry.get("log_histogram")),
        "spectrum": _optional(lambda e: Spectrum(**_tuples(e)), entry.get("spectrum")),
        "sketch": _optional(lambda e: SketchNote(**e), entry.get("sketch")),
    }


def _tensor(entry: Mapping[str, Any]) -> TensorRecord:
    return TensorRecord(**_tensor_fields(entry))


def _module(entry: Mapping[str, Any]) -> ModuleRecord:
    own = {key: entry[key] for key in ("name", "call", "order", "parent", "role")}
    energy = _optional(lambda e: ModeEnergy(**_tuples(e)), entry.get("mode_energy"))
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


def _findings(entries: list[Mapping[str, Any]]) -> tuple[Finding, ...]:
    names = [field.name for field in dataclasses.fields(Finding) if field.name != "evidence"]
    return tuple(
        Finding(**{name: entry[name] for name in names}, evidence=freeze_mapping(entry["evidence"]))
        for entry in entries
    )


def _tuples(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return numbers, lists and lists of lists with tuples for lists; quicker than `freeze` for so many."""
    return {key: _tupled(value) if isinstance(value, list) else value for key, value in entry.items()}


def _tupled(value: list[Any]) -> tuple[Any, ...]:
    return tuple(map(_tupled, value)) if value and isinstance(value[0], list) else tuple(value)
