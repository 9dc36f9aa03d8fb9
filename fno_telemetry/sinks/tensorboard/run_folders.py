"""The folders that the TensorBoard sink makes itself: one for each run, replaced as a whole."""

import contextlib
import hashlib
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from fno_telemetry import files
from fno_telemetry.errors import SinkUnavailable
from fno_telemetry.wording import to_printable

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

SUFFIX = ".fno-telemetry"
"""How the names of our own event files end; only files with it are ever replaced."""

OWN_EVENTS = f"events.out.tfevents.*{SUFFIX}"


def folder_name(experiment: str) -> str:
    """Return a folder name for the experiment; a name that had to change gets a short digest."""
    safe = re.sub(r"[^\w.+=@-]+", "-", to_printable(experiment)).lstrip(".-")[:80]
    if safe and safe == experiment:
        return safe
    digest = hashlib.sha256(experiment.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return f"{safe.strip('-') or 'run'}-{digest}"


class OwnRun:
    """Event files in a folder; they replace those of an earlier run there when this run ends well."""

    def __init__(
        self, make_writer: "type[SummaryWriter]", folder: Path, shown: Path, hidden_in: Path
    ) -> None:
        self._make = make_writer
        self.folder, self.shown = folder, shown
        replaces = any(folder.glob(OWN_EVENTS))
        part = hidden_in / f".{folder.absolute().name}.{secrets.token_hex(4)}.part"
        self._part = part if replaces else None
        reason = files.why_unwritable(folder) or (files.why_unwritable(hidden_in) if replaces else None)
        if reason:
            raise SinkUnavailable(f"TensorBoard cannot write to {folder}: {reason}")
        self._opened: SummaryWriter | None = None
        self.has_replaced = False

    @property
    def is_visible(self) -> bool:
        """Whether the events of this run are in their final folder."""
        return self._part is None

    def writer(self) -> "SummaryWriter":
        """Return the writer, made when first needed."""
        if self._opened is None:
            folder = self.folder if self._part is None else self._part
            # A longer queue than the default 10: every add would wait for the thread that writes.
            self._opened = self._make(log_dir=str(folder), max_queue=1000, filename_suffix=SUFFIX)
        return self._opened

    def close(self, ok: bool) -> None:
        """Close the writer; then move what is in the hidden folder to its place, or remove it."""
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
    """Replace our event files in `folder` by those in `new`; on an error nothing changes."""
    away = new / "earlier"
    away.mkdir()
    with contextlib.ExitStack() as undo:
        # Last of all, and only if it is empty: an old file that could not be moved back stays in it.
        undo.callback(_remove_folder, away)
        for source, target in ((folder, away), (new, folder)):
            for file in sorted(source.glob(OWN_EVENTS)):
                moved = file.rename(target / file.name)
                undo.callback(moved.rename, file)
        undo.pop_all()
    _remove_run(away)
    _remove_run(new)


def _remove_run(folder: Path) -> None:
    """Remove our event files and then the folder, which stays if anything else is in it."""
    with contextlib.suppress(OSError):
        for file in folder.glob(OWN_EVENTS):
            file.unlink(missing_ok=True)
    _remove_folder(folder)


def _remove_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
