"""Arrays inside a zip archive: which there are, and the bytes of one of them."""

import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO

from fno_telemetry.errors import InputError
from fno_telemetry.sources import checksums
from fno_telemetry.sources.first_samples import ValueBytes
from fno_telemetry.sources.npy_header import NpyHeader
from fno_telemetry.wording import hint_at_names

DEFAULT_KEYS = ("diffraction", "diff3d")
_LOCAL_HEADER = 30  # bytes before the member's name; its length and that of the extra field are at offset 26
_DEFLATE_LIMIT = 1032  # no deflate stream holds more bytes per byte [zlib technical details]
_LISTED = 12  # keys named in an error
_LOCAL_MAGIC = b"PK\x03\x04"


@contextmanager
def damage_named(where: str) -> Iterator[None]:
    """Turn whatever a damaged archive makes zipfile raise into one line."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        NotImplementedError,
        OverflowError,
        UnicodeDecodeError,
    ) as cause:
        seen = str(cause) or type(cause).__name__
        raise InputError(f"{where}: is damaged ({seen}); copy, download or save the file again.") from cause


def open_archive(file: IO[bytes], path: str) -> zipfile.ZipFile:
    """The archive in an open file, which stays the caller's to close."""
    try:
        return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, EOFError) as cause:
        raise InputError(
            f"{path}: begins like a zip archive (.npz, .pt) but its directory, at the end, cannot be read, "
            f"so it is cut short or damaged; copy, download or save it again."
        ) from cause


def is_torch_archive(archive: zipfile.ZipFile) -> bool:
    """True when torch.save wrote it."""
    names = archive.namelist()
    has_arrays = any(name.endswith(".npy") for name in names)
    return not has_arrays and any(name == "data.pkl" or name.endswith("/data.pkl") for name in names)


def choose_key(known: Iterable[str], key: str | None, path: str, option: str = "key") -> str:
    """The asked key, else the first default that is there; an error lists the keys, and names the option."""
    known = list(known)
    if not known:
        raise InputError(f"{path}: holds no array; save one with numpy.savez(path, diffraction=array).")
    wanted = DEFAULT_KEYS if key is None else (key,)
    for name in wanted:
        if name in known:
            return name
    asked = "neither diffraction nor diff3d" if key is None else f"no array called {key!a}"
    hint = hint_at_names(key or "", known, _LISTED)
    raise InputError(f"{path}: holds {asked}; name one of its arrays with `{option}`. {hint}")


def array_keys(archive: zipfile.ZipFile) -> list[str]:
    """Names of the arrays, as numpy.load gives them; nothing of them is read."""
    return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def check_member(member: zipfile.ZipInfo, file_size: int, where: str) -> None:
    """Refuse a member that cannot be read, or that claims more than its stored bytes can hold."""
    if fault := find_fault(member, file_size):
        raise InputError(f"{where}: {fault}; save it again, with numpy.savez or numpy.savez_compressed.")


def find_fault(member: zipfile.ZipInfo, file_size: int) -> str | None:
    """Return why a member cannot be read; None when it can."""
    if member.flag_bits & 0x1:
        return "is encrypted"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"is compressed by zip method {member.compress_type}"
    stored = member.compress_type == zipfile.ZIP_STORED
    largest = member.compress_size if stored else (member.compress_size + 1) * _DEFLATE_LIMIT
    inside = 0 <= member.header_offset <= file_size - _LOCAL_HEADER - member.compress_size
    if not inside or member.file_size > largest:
        return (
            f"claims {member.file_size} bytes in the archive, more than the file holds, "
            "so that is cut short or damaged"
        )
    return None


def find_start(file: IO[bytes], member: zipfile.ZipInfo) -> int:
    """Return where in the file the bytes of a stored member begin."""
    file.seek(member.header_offset)
    local = file.read(_LOCAL_HEADER)
    if local[:4] != _LOCAL_MAGIC:
        raise zipfile.BadZipFile("a member is not where the directory says")
    name_length, extra_length = struct.unpack_from("<HH", local, 26)
    return int(member.header_offset + _LOCAL_HEADER + name_length + extra_length)


@contextmanager
def member_values(
    file: IO[bytes], member: zipfile.ZipInfo, stream: IO[bytes], header: NpyHeader, *, partly: bool
) -> Iterator[ValueBytes]:
    """The bytes of a member's numbers, its header already read from `stream`.

    Up to 256 MB are read to their end, where the archive compares the checksum. A larger member that is
    stored and wanted only in part is jumped through in the file itself.
    """
    if partly and member.compress_type == zipfile.ZIP_STORED and member.file_size > checksums.CHECKED:
        file.seek(find_start(file, member) + header.length)
        yield ValueBytes(file, header.data_bytes, jumps=True)
        return
    source = ValueBytes(stream, header.data_bytes, jumps=False)
    yield source
    if source.left <= checksums.CHECKED:
        source.finish()
