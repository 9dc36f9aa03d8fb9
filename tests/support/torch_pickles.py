"""Files like those of torch.save around a pickle that was written by hand, and a limit on time and memory."""

import contextlib
import signal
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch


def save_pickle(path: Path, pickled: bytes) -> None:
    """Put a pickle where torch.save puts its own, next to a storage `0` of four float32 numbers."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/data/0", torch.arange(4.0).numpy().tobytes())
        archive.writestr("archive/version", "3\n")


class TookTooLong(BaseException):
    """Not an Exception: no reader of damaged files takes it for one of theirs."""


@contextlib.contextmanager
def limited_time(seconds: int = 20) -> Iterator[None]:
    """Fail what takes longer."""

    def give_up(*_: Any) -> None:
        raise TookTooLong(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def limited_memory(megabytes: float = 50) -> Iterator[None]:
    """Fail what takes more memory of Python at once; counting makes what makes many objects slow."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()
    assert peak < megabytes, f"{peak:.0f} MB were taken"
