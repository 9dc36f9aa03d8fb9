"""`--redact`: a record without paths, so that its report can be passed on."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import fno_telemetry as ft

_ABSOLUTE = re.compile(r"(?<![\w.*])(?:~|[A-Za-z]:)?[/\\][^\s'\",;:()\[\]<>]+")
_STAND_IN = "<path>"


def redact(record: ft.CaptureRecord, paths: Iterable[Path | None]) -> ft.CaptureRecord:
    """Return the record without the command and without paths: those given, and whatever is absolute."""
    typed = {str(form) for path in paths if path is not None for form in (path, path.absolute())}
    # The longest first, since one may be the start of another.
    alternatives = "|".join(re.escape(path) for path in sorted(typed, key=len, reverse=True))
    known = re.compile(rf"(?<![\w./-])(?:{alternatives})(?![\w/-])") if typed else None

    def cleaned(value: Any) -> Any:
        if isinstance(value, str):
            return _ABSOLUTE.sub(_STAND_IN, known.sub(_STAND_IN, value) if known else value)
        if isinstance(value, Mapping):
            kept = {key: cleaned(part) for key, part in value.items() if key not in ("path", "command")}
            return type(record.provenance)(kept)
        return tuple(cleaned(part) for part in value) if isinstance(value, tuple) else value

    provenance = cleaned(record.provenance)
    arguments = {key: _without_folders(value) for key, value in provenance.get("arguments", {}).items()}
    return replace(
        record,
        summary=cleaned(record.summary),
        provenance=type(provenance)({**provenance, "arguments": type(provenance)(arguments)}),
        skipped=cleaned(record.skipped),
        not_fired=cleaned(record.not_fired),
        errors=cleaned(record.errors),
        warnings=cleaned(record.warnings),
    )


def _without_folders(value: Any) -> Any:
    """Return an argument of the network, where a slash can only belong to a path."""
    if isinstance(value, tuple):
        return tuple(map(_without_folders, value))
    return _STAND_IN if isinstance(value, str) and ("/" in value or "\\" in value) else value
