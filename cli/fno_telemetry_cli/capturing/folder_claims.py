"""Which reports a capture is writing, told to other captures into the same folder as long as it runs."""

import contextlib
import json
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

import fno_telemetry as ft
from fno_telemetry import locks

_LOCK = ".fno-telemetry.lock"
_CLAIM = ".fno-telemetry.{}.capture"
_WAIT_SECONDS = 60
_TRIES = 10


@contextlib.contextmanager
def claim_reports(folder: Path, names: Sequence[str], *, force: bool) -> Iterator[None]:
    """Say within the block that this capture writes these reports; OptionError if another one writes them.

    With `force` both write, and the last report stays. The folder is made, and removed if it stays empty.
    What killed captures left half-written in the folder is removed.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    claim: locks.Lock | None = None
    try:
        try:
            claim = _claim_in_existing(folder, names, force)
        except OSError as error:
            raise ft.OptionError(
                f"--output {folder}: cannot be written: {error.strerror or error}; choose another folder"
            ) from error
        yield
    finally:
        if claim is not None:
            claim.remove()
        for place in missing:
            with contextlib.suppress(OSError):  # it is not empty
                place.rmdir()


def _claim_in_existing(folder: Path, names: Sequence[str], force: bool) -> locks.Lock | None:
    """Make the folder and claim the reports; again if a capture that failed has just removed the folder."""
    for _ in range(_TRIES):
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            return _claim(folder, names, force)
    return _claim(folder, names, force)


def _claim(folder: Path, names: Sequence[str], force: bool) -> locks.Lock | None:
    with locks.locked(folder / _LOCK, _WAIT_SECONDS):
        busy = sorted(_names_taken(folder).intersection(names))
        if busy and not force:
            raise ft.OptionError(
                f"{folder / busy[0]}: another capture is writing it at this moment; choose another "
                "--output-json-name, or wait until that one has ended"
            )
        _remove_what_was_left(folder)
        claim = locks.try_lock(folder / _CLAIM.format(secrets.token_hex(4)), new=True)
        if claim is not None:
            try:
                claim.path.write_text(json.dumps(names))
            except OSError:
                claim.remove()
                raise
        return claim


def _names_taken(folder: Path) -> set[str]:
    """Return the reports that running captures write; the claims of killed ones are removed."""
    taken: set[str] = set()
    for path in folder.glob(_CLAIM.format("*")):
        if not _remove_if_free(path):
            with contextlib.suppress(OSError, ValueError):
                taken.update(json.loads(path.read_text()))
    return taken


def _remove_what_was_left(folder: Path) -> None:
    """Remove what killed captures left half-written, in the folders of dashboards too, and their locks."""
    for place in (folder, *folder.glob("wandb/*/fno-telemetry")):
        locks.remove_leftovers(place)
    for pattern in ("wandb", "tensorboard/*", "tensorboard/*/*"):
        for path in folder.glob(f"{pattern}/.fno-telemetry*.lock"):
            _remove_if_free(path)


def _remove_if_free(path: Path) -> bool:
    """Remove a lock that ended with its process; return whether nobody holds it."""
    lock = locks.try_lock(path)
    if lock is None:
        return False
    if lock.is_sure:
        lock.remove()
    lock.end()
    return True
