"""How much a member of an archive may grow when it is unpacked."""

from zipfile import ZipInfo

_MOST = 20  # times the whole file; weights hardly shrink, so what grows much more is no network's
_ALWAYS = 1 << 28  # bytes


def check_inflation(members: list[ZipInfo], file_size: int) -> None:
    """Raise ValueError when members of a zip archive claim to be far larger than weights can be."""
    claimed = sum(member.file_size for member in members)
    if claimed > max(_ALWAYS, _MOST * file_size):
        raise ValueError(f"{members[0].filename} and what is next to it claim {claimed} bytes")
