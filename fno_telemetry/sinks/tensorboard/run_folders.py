"""The folders that the TensorBoard sink makes itself: one for each run, replaced as a whole."""

import contextlib
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fno_telemetry import files, locks
from fno_telemetry.errors import SinkUnavailable
from fno_telemetry.sinks.tensorboard.event_files import silence_writer_thread
from fno_telemetry.wording import to_printable

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

SUFFIX = ".fno-telemetry"
"""How the names of our own event files end; only files with it are ever replaced."""

OWN_EVENTS = f"events.out.tfevents.*{SUFFIX}"

LOCK = ".fno-telemetry.lock"
"""The file in a run's folder that is locked while events are moved."""

WAIT_SECONDS = 300
"""How long a capture waits for others: each writes the run again from all reports."""


def folder_name(experiment: str) -> str:
    """Return a folder name for the experiment; a name that had to change gets a short digest."""
    safe = re.sub(r"[^\w.+=@-]+", "-", to_printable(experiment)).lstrip(".-")[:80]
    if safe and safe == experiment:
        return safe
    digest = hashlib.sha256(experiment.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return f"{safe.strip('-') or 'run'}-{digest}"


class OwnRun:
    """Event files in a folder; they replace those of an earlier run there when this run ends well.

    Of runs that are written into one folder at the same time, the first shows its events at once.
    """

    def __init__(
        self, make_writer: "type[SummaryWriter]", folder: Path, shown: Path, hidden_in: Path
    ) -> None:
        self._make = make_writer
        self.folder, self.shown, self._hidden_in = folder, shown, hidden_in
        replaces = any(folder.glob(OWN_EVENTS))
        reason = files.why_not_utf8(folder) or files.why_unwritable(folder)
        reason = reason or (files.why_unwritable(hidden_in) if replaces else None)
        if reason:
            raise SinkUnavailable(f"TensorBoard cannot write to {folder}: {reason}")
        self._part: locks.Lock | None = None
        self._opened: SummaryWriter | None = None
        self._started_with: set[tuple[str, int]] = set()
        self.is_visible = True
        self.has_replaced = False

    def writer(self) -> "SummaryWriter":
        """Return the writer, made when first needed."""
        if self._opened is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.alone():
                locks.remove_leftovers(self._hidden_in)
                self._opened = self._start(hidden=bool(self._shown_events()))
                self._started_with = self._shown_events()
        return self._opened

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep others from moving events within the block; SinkUnavailable if they take too long."""
        with locks.locked(self.folder / LOCK, WAIT_SECONDS) as held:
            if not held:
                raise SinkUnavailable(
                    f"another capture has been writing into {self.folder} for {WAIT_SECONDS} s; "
                    "once it has ended, the next capture into this folder writes all reports"
                )
            yield

    def is_undisturbed(self) -> bool:
        """Whether the folder holds what it held when this run began, so that no other run was moved in."""
        return self._shown_events() == self._started_with

    def start_over(self) -> None:
        """Forget what was written, for events that replace those of all others; only within `alone`."""
        if self._opened is not None:
            self._opened.close()
        if self._part is not None:
            _remove_run(self._part)
        self._opened = self._start(hidden=True)

    def close(self, ok: bool) -> None:
        """Close the writer; then move what is in the hidden folder to its place, or remove it.

        What replaces another run is only moved within `alone`.
        """
        opened, self._opened = self._opened, None
        part, self._part = self._part, None
        try:
            if opened is not None:
                opened.close()
            if ok and part is not None:
                _swap(part.path.parent, self.folder)
                self.is_visible = self.has_replaced = True
        finally:
            if part is not None:
                _remove_run(part)

    def _start(self, *, hidden: bool) -> "SummaryWriter":
        self._part = locks.hidden_folder(self.folder, self._hidden_in) if hidden else None
        self.is_visible = not hidden
        folder = self.folder if self._part is None else self._part.path.parent
        # A longer queue than the default 10: every add would wait for the thread that writes.
        writer = self._make(log_dir=str(folder), max_queue=1000, filename_suffix=SUFFIX)
        silence_writer_thread(writer)
        return writer

    def _shown_events(self) -> set[tuple[str, int]]:
        """Return the name and inode of each of our event files in the folder."""
        return {(file.name, file.stat().st_ino) for file in self.folder.glob(OWN_EVENTS)}


def _swap(new: Path, folder: Path) -> None:
    """Replace our event files in `folder` by those in `new`; on an error in moving these nothing changes.

    The old ones go last, so that a kill in between leaves too much, which the next capture replaces.
    """
    old = list(folder.glob(OWN_EVENTS))
    with contextlib.ExitStack() as undo:
        for file in sorted(new.glob(OWN_EVENTS)):
            moved = file.rename(folder / file.name)
            undo.callback(moved.rename, file)
        undo.pop_all()
    for file in old:
        file.unlink(missing_ok=True)


def _remove_run(part: locks.Lock) -> None:
    """Remove our event files and then the hidden folder, which stays if anything else is in it."""
    folder = part.path.parent
    with contextlib.suppress(OSError):
        for file in folder.glob(OWN_EVENTS):
            file.unlink(missing_ok=True)
    part.remove()
    with contextlib.suppress(OSError):
        folder.rmdir()
