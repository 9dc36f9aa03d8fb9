"""What is known of the numbers in a file: whether a checksum says that they are as they were written."""

import zipfile
from pathlib import Path

CORRECT = "correct"
NOT_STORED = "not checked: the file has no checksums"
TOO_LARGE = "not checked: only a part was read, of more than 256 MB"
CHECKED = 256 << 20  # bytes of a member that are read for its checksum alone, in about a quarter of a second


def use_checksums(archive: zipfile.ZipFile) -> str:
    """Return CORRECT where zipfile will check what is read to its end, or NOT_STORED.

    torch can write archives whose checksums are all zero; these are not compared.
    """
    members = [member for member in archive.infolist() if member.file_size]
    if any(member.CRC for member in members):
        return CORRECT
    for member in members:
        del member.CRC  # zipfile then compares nothing
    return NOT_STORED


def describe_checksums(path: str) -> str:
    """Return what a file's checksums say when all of it could be read."""
    with Path(path).open("rb") as file:
        if file.read(2) != b"PK":
            return NOT_STORED
        with zipfile.ZipFile(file) as archive:
            return use_checksums(archive)
