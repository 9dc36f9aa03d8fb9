"""Pages as files: written whole or not at all, and never over what is no page."""

import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path

from fno_telemetry import files
from fno_telemetry.comparison import Comparison
from fno_telemetry.errors import MissingExtra, ReportError
from fno_telemetry.findings import Finding
from fno_telemetry.page.rendering import NEEDED, render_page
from fno_telemetry.records import CaptureRecord

_BEGINNING = b"<!doctype html>"


def write_page(
    path: str | Path,
    records: Sequence[CaptureRecord],
    findings: Iterable[Finding] | None = None,
    comparison: Comparison | None = None,
    skipped: Sequence[str] = (),
    names: Sequence[str] | None = None,
) -> Path:
    """Write the page that `render_page` returns of these arguments; an earlier page is replaced.

    ReportError where it cannot be written, or a file that is no page is there; MissingExtra as `check_page`.
    """
    target = check_page(path)
    text = render_page(records, findings, comparison, skipped, names)
    with files.whole_file(target) as part:
        part.write_text(text, encoding="utf-8", newline="\n")
    return target


def check_page(path: str | Path) -> Path:
    """Return the path if a page can be written there, as far as can be seen without writing.

    Raises:
        MissingExtra: jinja2 or matplotlib is not installed.
        ReportError: there is a folder, or a file that is no page, or the folder cannot be written.
    """
    if not all(importlib.util.find_spec(name) for name in ("jinja2", "matplotlib")):
        raise MissingExtra(NEEDED)
    target = Path(path)
    try:
        if target.exists():
            if (what := files.why_no_file(target)) is not None:
                raise ReportError(f"{target}: cannot be written: {what} is there")
            with target.open("rb") as there:
                beginning = there.read(len(_BEGINNING))
            if beginning and beginning.lower() != _BEGINNING:
                raise ReportError(
                    f"{target}: a file that is no HTML page is there, and would be gone; choose another name"
                )
    except OSError as error:
        raise ReportError(f"{target}: cannot be written: {error.strerror or error}") from error
    except ValueError as error:  # a null character
        raise ReportError(f"{target}: no path: {error}") from error
    if (reason := files.why_unwritable(target.parent)) is not None:
        raise ReportError(f"{target}: cannot be written: {reason}; choose another folder")
    return target
