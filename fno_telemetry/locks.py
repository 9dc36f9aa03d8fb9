"""Locks on files, and what killed processes left half-written.

A lock ends with its process, however that ends. So what a killed process left half-written is told from what
another process is just writing: that one has a lock on it.
"""

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

try:
    import fcntl
except ImportError:  # on Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

_PART = re.compile(r"\..+\.[0-9a-f]{8}\.part", re.DOTALL)
_LOCK = ".lock"  # in a hidden folder
_POLL_SECONDS = 0.05


@dataclass
class Lock:
    """A file that nobody else can lock until this one or the process ends.

    Without `is_sure` the file system knows no locks, and others may have the same one.
    """

    path: Path
    is_sure: bool
    _descriptor: int

    def remove(self) -> None:
        """Remove the file, unless it was replaced, and end the lock; what cannot be removed stays."""
        with contextlib.suppress(OSError):
            if self._descriptor in _held and _is_at(self._descriptor, self.path):
                self.path.unlink()
        self.end()

    def end(self) -> None:
        """Let others lock the file; in a process that was forked since, do nothing."""
        if self._descriptor in _held:
            _held.discard(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


_held: set[int] = set()  # descriptors


def _let_go() -> None:
    """Close in a forked process what is locked in the first one, whose end would else not end the lock."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def try_lock(path: Path, *, new: bool = False) -> Lock | None:
    """Lock the file, made if it is missing; None while somebody else holds it.

    With `new`, FileExistsError for a file that is there. OSError where it cannot be made.
    """
    # With the permissions that the user's umask gives, as any new file.
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | (os.O_EXCL if new else 0), 0o666)
    try:
        is_sure = _lock(descriptor)
        # Who held it before may have removed it since it was opened here; a lock on that guards nothing.
        if is_sure is not None and _is_at(descriptor, path):
            _held.add(descriptor)
            return Lock(path, is_sure, descriptor)
    except FileNotFoundError:
        pass
    finally:
        if descriptor not in _held:
            os.close(descriptor)
    return None


def _is_at(descriptor: int, path: Path) -> bool:
    return os.path.samestat(path.stat(), os.fstat(descriptor))


def _lock(descriptor: int) -> bool | None:
    """Return whether it is locked now; None while somebody else holds it, False where there are no locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError:
        return False
    return True


def wait_for_lock(path: Path, seconds: float) -> Lock | None:
    """Lock the file, made if it is missing; None when others hold it all that time. OSError as `try_lock`."""
    deadline = time.monotonic() + seconds
    while (lock := try_lock(path)) is None and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return lock


@contextlib.contextmanager
def locked(path: Path, seconds: float) -> Iterator[bool]:
    """Hold a lock on the file within the block; it is made before and removed after.

    Waits at most so many seconds for others, and yields whether it is held. OSError when the file cannot be
    made.
    """
    lock = wait_for_lock(path, seconds)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            lock.remove()


def hidden_file(target: Path) -> Lock:
    """Make a file next to `target` for what will replace it; return the lock of it.

    OSError where it cannot be made. `remove_leftovers` removes it once the lock has ended.
    """
    while True:
        if (lock := try_lock(target.parent / _part_name(target), new=True)) is not None:
            return lock


def hidden_folder(target: Path, place: Path) -> Lock:
    """Make a folder in `place` for what will replace `target`; return the lock of the file in it.

    OSError where it cannot be made. `remove_leftovers(place)` removes it once the lock has ended.
    """
    while True:
        folder = place / _part_name(target)
        folder.mkdir(parents=True)
        # None: somebody who removes leftovers was quicker.
        if (lock := try_lock(folder / _LOCK)) is not None:
            return lock


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left half-written in `folder`; what others are just writing stays.

    These are hidden files and hidden folders. What cannot be removed stays too.
    """
    with contextlib.suppress(OSError):
        for part in [part for part in folder.iterdir() if _PART.fullmatch(part.name)]:
            with contextlib.suppress(OSError):
                _remove_leftover(part)


def _remove_leftover(part: Path) -> None:
    is_folder = part.is_dir() and not part.is_symlink()
    if not is_folder and not part.is_file():
        return
    lock = try_lock(part / _LOCK if is_folder else part)
    if lock is None:
        return
    if not lock.is_sure:
        lock.end()
        return
    if is_folder:
        shutil.rmtree(part)
    lock.remove()


def _part_name(target: Path) -> str:
    return f".{target.absolute().name}.{secrets.token_hex(4)}.part"
