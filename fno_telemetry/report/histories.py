"""Histories: files of one record a line, to which a training appends.

A line that a killed process left unfinished at the end of a file is no part of it. Where a step is there
twice, as after a restart from an earlier checkpoint, the later line counts.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fno_telemetry import locks
from fno_telemetry.errors import OptionError, ReportError
from fno_telemetry.files import why_no_file
from fno_telemetry.records import STAGES, CaptureRecord, StepKind, step_label
from fno_telemetry.report.history_lines import BEGINNING, as_line, check_schema, read_line
from fno_telemetry.report.strict_json import MOST_BYTES, decode
from fno_telemetry.wording import hint_at_names

_MOST_BYTES_IN_ALL = 2**29  # of the records that are read at once: 10,000 of a network of 20 layers
_SECONDS = 10.0  # to wait for another process that appends
_BLOCK = 2**16
_ENDING = ".jsonl"


class _Summary(msgspec.Struct):
    checkpoint_step: int | None = None
    step_kind: str | None = None


class _Training(msgspec.Struct):
    stage: str | None = None


class _Head(msgspec.Struct):
    """What tells lines apart, read without the rest."""

    schema: str
    summary: _Summary
    training: _Training = msgspec.field(default_factory=_Training)


@dataclass(frozen=True)
class HistoryEntry:
    """One record of a history, which is read when it is asked for."""

    step: int | None
    step_kind: str | None
    stage: str | None
    file: Path
    line: int
    start: int
    size: int

    @property
    def label(self) -> str:
        """What tells it apart within its history: "step1000", "epoch3.val", or the line."""
        if self.step is None:
            return f"line{self.line}"
        kind: StepKind = "epoch" if self.step_kind == "epoch" else "step"
        return step_label(self.step, kind, None) + (".val" if self.stage == "val" else "")

    def load(self) -> CaptureRecord:
        """Read the record; ReportError says in a line what is wrong with it."""
        try:
            with self.file.open("rb") as opened:
                opened.seek(self.start)
                return read_line(opened.read(self.size))
        except OSError as error:
            raise ReportError(f"{self.file}: cannot be read: {error.strerror or error}") from error
        except ReportError as error:
            raise ReportError(f"{self.file}, line {self.line}: {error}") from error


def load_history(path: str | Path, stage: str | None = None) -> tuple[CaptureRecord, ...]:
    """Read all records of a history by ascending step, those without a step first.

    With `stage`, "train" or "val", only those of training steps, or of validations.
    Of a step that is there twice the later line counts; a line without its end is left out. `path` is the
    first file; those that were begun since, such as `history.1.jsonl`, are read too. ReportError says in a
    line what is wrong.
    """
    if stage is not None and stage not in STAGES:
        raise OptionError(f"unknown stage {stage!r}. {hint_at_names(str(stage), STAGES)}")
    return load_entries(entry for entry in list_history(path) if stage in (None, entry.stage))


def load_entries(entries: Iterable[HistoryEntry]) -> tuple[CaptureRecord, ...]:
    """Read the records of these entries; ReportError where they are too large together."""
    wanted = list(entries)
    if (size := sum(entry.size for entry in wanted)) > _MOST_BYTES_IN_ALL:
        raise ReportError(
            f"{wanted[0].file}: {size:,} bytes of records; expected {_MOST_BYTES_IN_ALL:,} at most; "
            "read one at a time: fno_telemetry.report.list_history"
        )
    return tuple(entry.load() for entry in wanted)


def list_history(path: str | Path) -> tuple[HistoryEntry, ...]:
    """Return what `load_history` would read, in the same order, without reading the records.

    ReportError where there is no history, or no whole record in it.
    """
    found: dict[object, HistoryEntry] = {}
    files = [file for _, file in _list_parts(Path(path))]
    if not files:
        raise ReportError(f"{path}: no such file; ft.HistoryFile writes histories")
    for file in files:
        for entry in _scan(file):
            key = (file, entry.line) if entry.step is None else (entry.step, entry.step_kind, entry.stage)
            # Of equal steps of two kinds, the one that was written last comes last.
            found.pop(key, None)
            found[key] = entry
    if not found:
        raise ReportError(f"{path}: no whole record in this history")
    return tuple(sorted(found.values(), key=lambda entry: -1 if entry.step is None else entry.step))


def is_history(path: str | Path) -> bool:
    """Return whether this is the name of a history, `….jsonl`, or a file that begins as one."""
    path = Path(path)
    try:
        if path.suffix == _ENDING:
            return not path.is_dir()
        return why_no_file(path) is None and _begins_as_one(path)
    except (OSError, ValueError):
        return False


def append_to_history(record: CaptureRecord, path: str | Path, most_bytes: int | None = None) -> Path:
    """Append the record as one line, in one call to the system; return the file that has it.

    That is the last file of the history, or a new one where it would get larger than `most_bytes`. A line
    without its end is cut off before. ReportError where that fails, and then the files are as they were.
    """
    first, line = Path(path), as_line(record)
    try:
        if first.exists() and (what := why_no_file(first)) is not None:
            raise ReportError(f"{first}: cannot be written: {what} is there")
        first.parent.mkdir(parents=True, exist_ok=True)
        lock = locks.wait_for_lock(first, _SECONDS)
        if lock is None:
            raise ReportError(f"{first}: cannot be written: another process has it for {_SECONDS:.0f} s")
        try:
            number, file = _list_parts(first)[-1]
            lacking, size = _mend(file)
            if most_bytes is not None and size and size + len(line) > most_bytes:
                if lacking:
                    _write_whole(file, lacking)
                lacking, file = b"", _part(first, number + 1)
            _write_whole(file, lacking + line)
        finally:
            lock.end()
    except OSError as error:
        raise ReportError(f"{first}: cannot be written: {error.strerror or error}") from error
    return file


def _write_whole(file: Path, data: bytes) -> None:
    """Append these bytes in one call; OSError where they were not all written, and then none are."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        try:
            written = os.write(descriptor, data)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
        if written < len(data):
            os.ftruncate(descriptor, size)
            raise OSError(f"only {written:,} of {len(data):,} bytes could be written")
    finally:
        os.close(descriptor)


def _mend(file: Path) -> tuple[bytes, int]:
    """Cut off a line without its end; return the line break that a whole one lacks, and the file's size.

    ReportError for a file that is no history, which stays as it is.
    """
    size = file.stat().st_size
    if not size:
        return b"", 0
    if not _begins_as_one(file):
        raise ReportError(f"{file}: a file that is no history is there; choose another path")
    end = _find_end(file, size)
    if end == size:
        return b"", size
    with file.open("rb") as opened:
        opened.seek(end)
        rest = opened.read()
    if _read_head(rest) is not None:
        return b"\n", size
    os.truncate(file, end)
    return b"", end


def _find_end(file: Path, size: int) -> int:
    """Return where the last line with a line break ends; ReportError for a longer rest than a line has."""
    position = size
    with file.open("rb") as opened:
        while position > 0:
            start = max(0, position - _BLOCK)
            opened.seek(start)
            at = opened.read(position - start).rfind(b"\n")
            if at >= 0:
                return start + at + 1
            if size - start > MOST_BYTES:
                raise ReportError(
                    f"{file}: a line of more than {MOST_BYTES:,} bytes is there; choose another path"
                )
            position = start
    return 0


def _scan(file: Path) -> Iterator[HistoryEntry]:
    """Yield the lines of one file in their order."""
    try:
        if (what := why_no_file(file)) is not None:
            raise ReportError(f"{file}: cannot be read: {what}; expected a history of records")
        if file.stat().st_size and not _begins_as_one(file):
            raise ReportError(
                f"{file}: not a history of records: a line has no schema fno-telemetry-history/N"
            )
        with file.open("rb") as opened:
            number, start = 0, 0
            while line := opened.readline(MOST_BYTES + 1):
                number += 1
                place = f"{file}, line {number}"
                if len(line) > MOST_BYTES:
                    raise ReportError(f"{place}: more than {MOST_BYTES:,} bytes; expected a record")
                head = _read_head(line)
                if head is not None:
                    yield _entry(head, file, place, number, start, len(line))
                elif line.endswith(b"\n") and line.strip():
                    raise ReportError(f"{place}: not a record; without that line the others can be read")
                start += len(line)
    except OSError as error:
        raise ReportError(f"{file}: cannot be read: {error.strerror or error}") from error


def _entry(head: _Head, file: Path, place: str, number: int, start: int, size: int) -> HistoryEntry:
    try:
        check_schema(head.schema)
    except ReportError as error:
        raise ReportError(f"{place}: {error}") from error
    summary = head.summary
    return HistoryEntry(
        summary.checkpoint_step, summary.step_kind, head.training.stage, file, number, start, size
    )


def _read_head(line: bytes) -> _Head | None:
    """Return what tells a line apart; None for other than a whole record."""
    with contextlib.suppress(msgspec.MsgspecError, RecursionError):
        return msgspec.json.decode(line, type=_Head)
    # Half of a surrogate pair, in the name of a file that is not UTF-8, is refused by the fast reader.
    with contextlib.suppress(msgspec.MsgspecError, ValueError, RecursionError):
        return msgspec.convert(decode(line.decode()), _Head)
    return None


def _begins_as_one(file: Path) -> bool:
    """Return whether the first line is one of a history, or the beginning of one."""
    with file.open("rb") as opened:
        beginning = opened.read(len(BEGINNING))
    return bool(beginning) and BEGINNING.startswith(beginning)


def _list_parts(first: Path) -> list[tuple[int, Path]]:
    """Return the files of a history that are there, in the order in which they were written."""
    name = re.compile(rf"{re.escape(first.stem)}\.([1-9][0-9]{{0,8}}){re.escape(first.suffix)}")
    try:
        files = list(first.parent.iterdir()) if first.parent.is_dir() else []
        begun = [(0, first)] if first.exists() else []
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise ReportError(f"{first}: cannot be read: {error}") from error
    later = [(int(found[1]), file) for file in files if (found := name.fullmatch(file.name))]
    return [*begun, *sorted(later)]


def _part(first: Path, number: int) -> Path:
    return first.with_name(f"{first.stem}.{number}{first.suffix}")
