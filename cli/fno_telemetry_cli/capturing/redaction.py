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
    known = _pattern(paths)

    def cleaned(value: Any) -> Any:
        if isinstance(value, str):
            return _without_paths(value, known)
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


def redact_findings(findings: Iterable[ft.Finding], paths: Iterable[Path | None]) -> tuple[ft.Finding, ...]:
    """Return the findings without paths: a rule of another package may say anything, also why it failed."""
    known = _pattern(paths)

    def cleaned(value: Any) -> Any:
        return _without_paths(value, known) if isinstance(value, str) else value

    return tuple(
        replace(
            finding,
            message=cleaned(finding.message),
            advice=cleaned(finding.advice),
            confirm=cleaned(finding.confirm),
            evidence=type(finding.evidence)({name: cleaned(part) for name, part in finding.evidence.items()}),
        )
        for finding in findings
    )


def _pattern(paths: Iterable[Path | None]) -> re.Pattern[str] | None:
    """Return what finds these paths in a text; None without any."""
    typed = {str(form) for path in paths if path is not None for form in (path, path.absolute())}
    # The longest first, since one may be the start of another.
    alternatives = "|".join(re.escape(path) for path in sorted(typed, key=len, reverse=True))
    return re.compile(rf"(?<![\w./-])(?:{alternatives})(?![\w/-])") if typed else None


def _without_paths(text: str, known: re.Pattern[str] | None) -> str:
    return _ABSOLUTE.sub(_STAND_IN, known.sub(_STAND_IN, text) if known else text)


def _without_folders(value: Any) -> Any:
    """Return an argument of the network, where a slash can only belong to a path."""
    if isinstance(value, tuple):
        return tuple(map(_without_folders, value))
    return _STAND_IN if isinstance(value, str) and ("/" in value or "\\" in value) else value
