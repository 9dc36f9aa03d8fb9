"""The record as strict JSON, written whole or not at all."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from fno_telemetry.errors import ReportError
from fno_telemetry.files import whole_file
from fno_telemetry.records import CaptureRecord, ModuleRecord, TensorRecord

_WHERE_KNOWN = ("quantities", "parameters", "target", "accuracy", "resolution", "training")
"""Keys that a report has where there is something under them."""


def as_document(record: CaptureRecord) -> dict[str, Any]:
    """Return the record as plain lists, dicts, strings and finite numbers, ready for any JSON writer."""
    document = {"schema": f"fno-telemetry/{record.schema}"}
    for field in dataclasses.fields(record):
        # Findings are there when somebody looked for them, quantities when packages bring their own.
        left_out = {
            "schema": True,
            "findings": record.findings is None,
            **{name: not getattr(record, name) for name in _WHERE_KNOWN},
        }
        if not left_out.get(field.name):
            document[field.name] = as_plain(getattr(record, field.name))
    return document


def as_plain(value: Any) -> Any:
    """Return a value as JSON holds it: dicts, lists, texts and finite numbers; what is not finite is None.

    ReportError for what JSON does not have.
    """
    if isinstance(value, ModuleRecord):
        entry: dict[str, Any] = {
            "name": value.name,
            "call": value.call,
            "item": value.item,
            "order": value.order,
            "parent": value.parent,
            "class": value.class_name,
            "role": value.role,
        }
        return entry | _tensor(value) | {"mode_energy": as_plain(value.mode_energy)}
    if isinstance(value, TensorRecord):
        return _tensor(value)
    if dataclasses.is_dataclass(value):
        return {f.name: as_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [as_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ReportError(f"a report cannot hold a {type(value).__name__}")


def _tensor(record: TensorRecord) -> dict[str, Any]:
    """Return what every tensor has; the extremes of processes only where there are several."""
    entry = {f.name: as_plain(getattr(record, f.name)) for f in dataclasses.fields(TensorRecord)}
    if record.process_extremes is None:
        del entry["process_extremes"]
    return entry


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


def resampled_report_name(name: str, factor: float) -> str:
    """Return the name of the report at another resolution: `activation_report.at2x.json`."""
    return series_report_name(name, f"at{factor:g}x")


def series_report_name(name: str, label: str) -> str:
    """Return the name of one report of several: `activation_report.json`, `activation_report.step1000.json`.

    The label comes before the ending, so that the reports of a series are listed together.
    """
    path = PurePath(name)
    return f"{path.stem}.{label}{path.suffix}"
