"""TensorBoard: curves, histograms, percentile bands and a table, through the real SummaryWriter."""

import contextlib
import hashlib
import re
import secrets
import shlex
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from fno_telemetry import report
from fno_telemetry.errors import MissingExtra, OptionError, SinkUnavailable
from fno_telemetry.records import CaptureRecord
from fno_telemetry.sinks.contract import RunContext
from fno_telemetry.sinks.tensorboard_content import Charts, scalars, table, tensors, write_histograms

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

TEXT_TAG = "report"
"""Where the table stands; SummaryWriter shows it as `report/text_summary`."""

SUFFIX = ".fno-telemetry"
"""How the names of our own event files end; only files with it are ever replaced."""

BEST_TAB = "#custom_scalars&_smoothingWeight=0"
"""The tab to see first; the default smoothing would distort a curve of few points."""

_OWN_EVENTS = f"events.out.tfevents.*{SUFFIX}"


class TensorBoard:
    """Writes every record into one TensorBoard run, at the record's step.

    `TensorBoard(writer)` writes into what the caller owns: flushed, never closed. `layout=False` leaves the
    Custom Scalars tab alone, of which a run can have only one layout, the last.
    `TensorBoard(log_dir=...)` opens and closes a writer of its own; without arguments the run decides:
    `<folder>/tensorboard/<experiment>`. Nothing is on disk before the first record.

    An own folder that already holds events of this sink gets a fresh run: the new events are written into
    a hidden folder `.<name>.<random>.part` and take the place of the old ones when the sink is closed well;
    otherwise the old ones stay. Only event files of this sink (`events.out.tfevents.*.fno-telemetry`) are
    replaced. Event files of others, and every other file or folder, are kept and never moved. A TensorBoard
    that is already running keeps what it has read of the old run until it is restarted. A kill leaves the
    hidden folder behind.

    Write records in ascending step: TensorBoard hides points that come after a larger step. It stores curves
    as float32, so a larger number appears as infinity.
    """

    name = "tensorboard"

    def __init__(
        self,
        writer: "SummaryWriter | None" = None,
        *,
        log_dir: str | Path | None = None,
        layout: bool = True,
    ) -> None:
        if writer is not None and log_dir is not None:
            raise OptionError(
                "TensorBoard takes a writer or a log_dir, not both: the writer has its own folder"
            )
        self._callers = writer
        self._log_dir = None if log_dir is None else Path(log_dir)
        self._layout = layout
        self._own: _OwnRun | None = None
        self._start_afresh()

    def open(self, run: RunContext) -> None:
        """Load SummaryWriter and settle the folder; SinkUnavailable when there is none to be had."""
        self._start_afresh()
        if self._callers is not None:
            return
        if self._log_dir is None:
            parent = run.folder / "tensorboard"
            experiment = run.experiment or run.folder.absolute().name
            # Beside the folder that TensorBoard watches, so that half a run is never shown.
            self._own = _OwnRun(parent / folder_name(experiment), shown=parent, hidden_in=run.folder)
        else:
            beside = self._log_dir.absolute().parent
            self._own = _OwnRun(self._log_dir, shown=self._log_dir, hidden_in=beside)

    def write(self, record: CaptureRecord) -> None:
        """Write one record and flush it."""
        writer = self._writer()
        step = record.step or 0
        for tag, value in scalars(record):
            writer.add_scalar(tag, value, step)
        for place, entry in tensors(record):
            write_histograms(writer, place, entry, step)
        if self._charts.add(record) and self._layout:
            writer.add_custom_scalars(self._charts.layout())
        writer.add_text(TEXT_TAG, table(record), step)
        writer.flush()
        self._steps.append(step)

    def flush(self) -> None:
        """Make sure that what was written survives a kill."""
        if self._steps:
            self._writer().flush()

    def close(self, ok: bool) -> list[str]:
        """Close an own writer, flush the caller's; return how to look, once there is something to see."""
        steps, own = self._steps, self._own
        self._own = None
        self._start_afresh()
        if own is not None:
            own.close(ok)
        elif steps and self._callers is not None:
            self._callers.flush()
        if not steps or (own is not None and not own.is_visible):
            return []
        shown = getattr(self._callers, "log_dir", None) if own is None else own.shown
        lines = [] if shown is None else _how_to_look(shown, BEST_TAB if self._layout else "#scalars")
        if own is not None and own.has_replaced:
            lines.append("The earlier run was replaced: restart a TensorBoard that is already open.")
        return lines + _warn_of_order(steps)

    def _start_afresh(self) -> None:
        self._charts = Charts()
        self._steps: list[int] = []

    def _writer(self) -> "SummaryWriter":
        if self._callers is not None:
            return self._callers
        if self._own is None:
            raise SinkUnavailable("This TensorBoard sink is not open: call open(run), or give it a writer.")
        return self._own.writer()


def folder_name(experiment: str) -> str:
    """Return the experiment's name as a folder's; names that had to change keep apart by a short digest."""
    safe = re.sub(r"[^\w.+=@-]+", "-", experiment).lstrip(".-")[:80]
    if safe and safe == experiment:
        return safe
    digest = hashlib.sha256(experiment.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return f"{safe.strip('-') or 'run'}-{digest}"


class _OwnRun:
    """Event files in a folder; those of an earlier run there give way when this one ends well."""

    def __init__(self, folder: Path, shown: Path, hidden_in: Path) -> None:
        self._make = _summary_writer_class()
        self.folder, self.shown = folder, shown
        replaces = any(folder.glob(_OWN_EVENTS))
        part = hidden_in / f".{folder.absolute().name}.{secrets.token_hex(4)}.part"
        self._part = part if replaces else None
        reason = report.why_unwritable(folder) or (report.why_unwritable(hidden_in) if replaces else None)
        if reason:
            raise SinkUnavailable(f"TensorBoard cannot write to {folder}: {reason}")
        self._opened: SummaryWriter | None = None
        self.has_replaced = False

    @property
    def is_visible(self) -> bool:
        """Whether the events of this run stand where they were asked for."""
        return self._part is None

    def writer(self) -> "SummaryWriter":
        """Return the writer, made when first needed."""
        if self._opened is None:
            folder = self.folder if self._part is None else self._part
            # A longer queue than the default 10: every add would wait for the thread that writes.
            self._opened = self._make(log_dir=str(folder), max_queue=1000, filename_suffix=SUFFIX)
        return self._opened

    def close(self, ok: bool) -> None:
        """Close the writer; then swap in, or drop, what was written aside."""
        opened, self._opened = self._opened, None
        try:
            if opened is not None:
                opened.close()
            if ok and opened is not None and self._part is not None:
                _swap(self._part, self.folder)
                self._part, self.has_replaced = None, True
        finally:
            if self._part is not None:
                _remove_run(self._part)


def _swap(new: Path, folder: Path) -> None:
    """Let our event files in `new` take the place of those in `folder`; on an error nothing changes."""
    away = new / "earlier"
    away.mkdir()
    with contextlib.ExitStack() as undo:
        # Last of all, and only an empty folder goes: an old file that could not be put back stays in it.
        undo.callback(_remove_folder, away)
        for source, target in ((folder, away), (new, folder)):
            for file in sorted(source.glob(_OWN_EVENTS)):
                moved = file.rename(target / file.name)
                undo.callback(moved.rename, file)
        undo.pop_all()
    _remove_run(away)
    _remove_run(new)


def _remove_run(folder: Path) -> None:
    """Remove our event files and then the folder, which stays if anything else is in it."""
    with contextlib.suppress(OSError):
        for file in folder.glob(_OWN_EVENTS):
            file.unlink(missing_ok=True)
    _remove_folder(folder)


def _remove_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _summary_writer_class() -> "type[SummaryWriter]":
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == "tensorboard":
            raise MissingExtra(
                "The tensorboard sink needs tensorboard: pip install 'fno-telemetry[tensorboard]'."
            ) from error
        raise SinkUnavailable(f"The installed tensorboard cannot be imported: {error}") from error
    return SummaryWriter


def _how_to_look(folder: object, best: str) -> list[str]:
    path = shlex.quote(str(folder))
    return [
        f"fno-telemetry view --tensorboard {path}",
        f"or: tensorboard --logdir {path}, then open http://localhost:6006/{best}",
    ]


def _warn_of_order(steps: Sequence[int]) -> list[str]:
    for before, after in pairwise(steps):
        if after < before:
            return [f"TensorBoard may hide points: step {after} came after {before}; write ascending steps."]
    return []
