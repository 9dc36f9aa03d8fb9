"""The reports that a path names."""

# Annotations name a class whose module imports msgspec; they are not evaluated.
from __future__ import annotations

import contextlib
import gc
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import fno_telemetry as ft
from fno_telemetry import diagnosis, report
from fno_telemetry.files import why_no_file
from fno_telemetry.keys import VALIDATION

_REPORT, _HEAD = b'"fno-telemetry/', 256  # what the first bytes of a report hold
_HISTORY = "history.jsonl"
Entry = TypeVar("Entry")

EVERY_STAGE = "every stage"
"""Instead of a stage: the records of all, which are no series."""

_NAMED = 3  # folders, or steps, in a message


def reports_in(
    path: Path, stage: str | None = None, *, with_resampled: bool = False
) -> tuple[dict[Path, ft.CaptureRecord], list[str]]:
    """Return the report at `path`, or those in that folder, and a line for each report that is left out.

    In a folder, reports of the same fields at another resolution are no part of the series: they are left out
    unless asked for, as long as there are others.

    Of a history, also of one in a folder without reports, the records by `<history>/<label>`. Of a training
    and its validations, which are series of their own, those of the `stage`, by default the training, and a
    line about the others.
    ReportError when there is none.
    """
    if (history := find_history(path)) is not None:
        return _records_of(history, stage)
    if not path.is_dir():
        return {path: ft.load_report(path)}, []
    found: dict[Path, ft.CaptureRecord] = {}
    refused: list[str] = []
    first: ft.ReportError | None = None
    with _without_collector():
        for file in sorted(path.glob("*.json"), key=_by_numbers):
            try:
                found[file] = ft.load_report(file)
            except ft.ReportError as error:
                first = first or error
                # Other programs write JSON, too.
                refused += [str(error)] if _may_be_a_report(file) else []
    if not found:
        raise first or ft.ReportError(_nothing_in(path))
    if not with_resampled:
        found = leave_out_resampled(found)
    else:
        for file in [
            file for file, record in found.items() if diagnosis.is_of_earlier(record, found.values())
        ]:
            refused.append(f"{file}: it is of other weights or samples than the report it was made with")
            del found[file]
    chosen, others = _choose_stage(path, list(found.items()), stage, lambda item: item[1].stage)
    return dict(chosen), [*refused, *others, *_history_beside(path, found.values())]


def _history_beside(folder: Path, reports: Iterable[ft.CaptureRecord]) -> Iterator[str]:
    """Yield a line about a history next to reports that holds more than they do."""
    history = folder / _HISTORY
    if not history.is_file():
        return
    known = {(record.step, record.stage) for record in reports}
    with contextlib.suppress(ft.ReportError):
        more = [entry for entry in report.list_history(history) if (entry.step, entry.stage) not in known]
        if more:
            yield f"{history}: a history with {len(more)} more records; name it to read it"


def leave_out_resampled(found: Mapping[Path, ft.CaptureRecord]) -> dict[Path, ft.CaptureRecord]:
    """Return the reports without those of the same fields at another resolution, unless all are of these."""
    return {path: record for path, record in found.items() if record.resolution is None} or dict(found)


def find_history(path: Path) -> Path | None:
    """Return the history at `path`, or in a folder that holds one and no reports; None if there is none."""
    if report.is_history(path):
        return path
    inside = path / _HISTORY
    return inside if inside.is_file() and not any(path.glob("*.json")) else None


def record_at(
    history: Path, step: int | None, stage: str | None = None
) -> tuple[dict[Path, ft.CaptureRecord], list[str]]:
    """Return the records of a step in a history, or the last record, as `reports_in` returns all of them.

    ReportError names the steps nearest to one that is not there.
    """
    entries, left_out = _list_entries(history, stage)
    if step is None:
        chosen = [entries[-1]]
    elif not (chosen := [entry for entry in entries if entry.step == step]):
        known = sorted({entry.step for entry in entries if entry.step is not None})
        near = sorted(sorted(known, key=lambda other: abs(other - step))[:_NAMED])
        hint = f"the nearest are {', '.join(map(str, near))}" if near else "its records have no steps"
        raise ft.ReportError(f"{history}: no record of step {step}; {hint}")
    return {history / entry.label: entry.load() for entry in chosen}, left_out


def _records_of(history: Path, stage: str | None) -> tuple[dict[Path, ft.CaptureRecord], list[str]]:
    entries, left_out = _list_entries(history, stage)
    with _without_collector():
        records = report.load_entries(entries)
    return {history / entry.label: record for entry, record in zip(entries, records, strict=True)}, left_out


def _list_entries(history: Path, stage: str | None) -> tuple[list[report.HistoryEntry], list[str]]:
    return _choose_stage(history, report.list_history(history), stage, lambda entry: entry.stage)


def _choose_stage(
    path: Path, entries: Sequence[Entry], stage: str | None, stage_of: Callable[[Entry], str | None]
) -> tuple[list[Entry], list[str]]:
    """Return the entries of one stage, by default the training if it has any, and a line about the others."""
    if stage == EVERY_STAGE:
        return list(entries), []
    validations = [entry for entry in entries if stage_of(entry) == VALIDATION]
    others = [entry for entry in entries if stage_of(entry) != VALIDATION]
    if stage == VALIDATION or (stage is None and not others):
        chosen, left_out, what, option = validations, others, "training steps", "train"
    else:
        chosen, left_out, what, option = others, validations, "validations", "val"
    if not chosen:
        missing = "validations" if stage == VALIDATION else "training steps"
        raise ft.ReportError(f"{path}: no record of {missing}; leave out --stage {stage}")
    if not left_out:
        return chosen, []
    records = f"{len(left_out)} record{'' if len(left_out) == 1 else 's'} of {what}"
    return chosen, [f"{path}: {records}, which are a series of their own: --stage {option}"]


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Keep the collector of reference cycles from walking through all reports again for every few of them.

    Records have no cycles, and the command needs them to its end.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        # Together these make the records old, without a walk through them.
        gc.freeze()
        gc.unfreeze()
        if was_on:
            gc.enable()


def reports_below(path: Path, stage: str | None = None) -> tuple[dict[Path, ft.CaptureRecord], list[str]]:
    """Return what `reports_in` returns or, of a folder without reports, those in the folders in it."""
    found: dict[Path, ft.CaptureRecord] = {}
    refused: list[str] = []
    for folder in captures_below(path):
        try:
            reports, reasons = reports_in(folder, stage)
        except ft.ReportError as error:
            reports, reasons = {}, [str(error)]
        found |= reports
        refused += reasons
    return (found, refused) if found else reports_in(path, stage)


def captures_below(path: Path) -> list[Path]:
    """Return the folders with reports in a folder that holds none itself."""
    if not path.is_dir() or any(path.glob("*.json")):
        return []
    return [folder for folder in sorted(path.iterdir(), key=_by_numbers) if _holds_a_report(folder)]


def reports_in_all(
    paths: Iterable[Path], stage: str | None = None, *, with_resampled: bool = False
) -> tuple[dict[Path, ft.CaptureRecord], list[str]]:
    """Return the reports at all these paths, and a line for each file that is left out."""
    found: dict[Path, ft.CaptureRecord] = {}
    notes: list[str] = []
    for path in paths:
        reports, refused = reports_in(path, stage, with_resampled=with_resampled)
        found |= reports
        notes += [f"left out: {reason}" for reason in refused]
    return found, notes


def _nothing_in(folder: Path) -> str:
    if captures := captures_below(folder):
        more = f" and {len(captures) - _NAMED} more" if len(captures) > _NAMED else ""
        names = ", ".join(map(str, captures[:_NAMED]))
        return f"{folder}: no report in this folder, but in the folders {names}{more} in it; name one of them"
    return f"{folder}: no report in this folder; `fno-telemetry capture --output {folder}` writes one"


def _holds_a_report(folder: Path) -> bool:
    return any(map(_is_a_report, folder.glob("*.json")))


def _is_a_report(file: Path) -> bool:
    """Whether a file begins as a report; a folder of that name, or what cannot be read, does not."""
    with contextlib.suppress(OSError):
        return why_no_file(file) is None and _begins_as_a_report(file)
    return False


def _may_be_a_report(file: Path) -> bool:
    """Whether a file begins as a report, or cannot be read."""
    with contextlib.suppress(OSError):
        return why_no_file(file) is not None or _begins_as_a_report(file)
    return True


def _begins_as_a_report(file: Path) -> bool:
    with file.open("rb") as opened:
        return _REPORT in opened.read(_HEAD)


def refuse_two_runs(found: Iterable[tuple[Path, ft.CaptureRecord]]) -> None:
    """Raise ReportError where two folders have a report of the same step: these are two runs."""
    steps: dict[tuple[int, object], Path] = {}
    for path, record in found:
        if record.step is None:
            continue
        other = steps.setdefault((record.step, record.summary.get("step_kind")), path)
        if other.resolve().parent != path.resolve().parent:
            raise ft.ReportError(
                f"{other} and {path} are both of {record.spelled_step}, so they are of two runs; give the "
                "reports of one run, or compare runs: fno-telemetry compare --group"
            )


def _by_numbers(file: Path) -> list[tuple[int, str]]:
    """Sort names as people do: step9 before step10."""
    parts = re.split(r"(\d+)", file.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
