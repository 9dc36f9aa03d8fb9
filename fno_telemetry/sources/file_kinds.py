"""What a file is, told by its first bytes; its name is only used in messages."""

import stat
from pathlib import Path
from typing import Literal

from fno_telemetry.errors import InputError
from fno_telemetry.sources import other_formats
from fno_telemetry.sources.npy_header import MAGIC

Kind = Literal["npy", "zip", "pickle"]

_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")  # the second: an archive without members
_FOREIGN = {
    b"\x1f\x8b": "a gzip file",
    b"\x89PNG": "a PNG picture",
}
_LFS = "a git-LFS pointer, not the data itself"
_HTML = "a web page"
_CURE = "give an .npz, .npy or .pt file with an array"
_CURE_FOR = {
    _LFS: "fetch the data with: git lfs pull",
    _HTML: "download the file itself, perhaps after signing in",
}
_SUFFIXES = (".npz", ".npy", ".pt")


def recognise(path: str) -> tuple[Kind, int]:
    """The kind of a file and its size in bytes.

    Raises InputError for what cannot hold arrays, and OSError as it comes.
    """
    location = Path(path)
    status = location.stat()
    if stat.S_ISDIR(status.st_mode):
        if (store := other_formats.recognise_folder(path)) is not None:
            raise InputError(f"{path}: is {store.name}; {store.describe_reading(path)}.")
        raise InputError(f"{path}: is a folder; {_CURE} in it.")
    if not stat.S_ISREG(status.st_mode):
        # Opening a pipe would wait for ever, and parts of it cannot be jumped over.
        raise InputError(f"{path}: is not a regular file; {_CURE}.")
    if status.st_size == 0:
        raise InputError(f"{path}: is empty; copy, download or save it again.")
    with location.open("rb", buffering=0) as file:
        head = file.read(1024)
    if head.startswith(MAGIC) or (len(head) < len(MAGIC) and MAGIC.startswith(head)):
        return "npy", status.st_size
    if head.startswith(_ZIP_STARTS):
        return "zip", status.st_size
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle", status.st_size
    if (other := other_formats.recognise_file(path, head)) is not None:
        raise InputError(f"{path}: is {other.name}; {other.describe_reading(path)}.")
    what = _describe(head)
    contrast = (
        f"although its name ends in {location.suffix}" if location.suffix in _SUFFIXES else "not arrays"
    )
    raise InputError(f"{path}: is {what}, {contrast}; {_CURE_FOR.get(what, _CURE)}.")


def _describe(head: bytes) -> str:
    for start, name in _FOREIGN.items():
        if head.startswith(start):
            return name
    if head.startswith(b"version https://git-lfs"):
        return _LFS
    text = head.decode("utf-8-sig", errors="ignore")
    if text.lstrip().lower().startswith(("<!doctype html", "<html")):
        return _HTML
    readable = len(text.encode()) >= len(head) - 6  # a character may be cut at the end
    if readable and all(letter.isprintable() or letter.isspace() for letter in text):
        return "text"
    return "of a kind not known here"
