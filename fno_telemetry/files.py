"""Files: read without waiting and within bounds, or refused in one line; written whole or not at all."""

import contextlib
import math
import os
import re
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fno_telemetry import locks
from fno_telemetry.errors import ReportError, TelemetryError

_MOST_TOML_BYTES = 2**20  # a map of 5,000 modules; the parser takes seconds for as much

DEEPEST = 64
"""Levels of nesting in TOML and JSON: nobody writes more, and functions call themselves for each."""

_KINDS = {
    stat.S_IFDIR: "folder",
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}
_TOO_DEEP = f"nested deeper than {DEEPEST} levels"
_INTEGER_BITS = 64
_TOO_LARGE = f"a whole number has more than {_INTEGER_BITS} bits"
# The parser's time for a dotted key grows with the square of its parts.
_PART = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rf"(?<![\w-]){_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{DEEPEST}}}")


def why_no_file(path: str | Path) -> str | None:
    """Return what is at `path` where that is no file, such as "a folder"; OSError as it comes.

    What waits for somebody else, as a pipe does, must not be opened.
    """
    mode = Path(path).stat().st_mode
    return None if stat.S_ISREG(mode) else f"a {_KINDS.get(stat.S_IFMT(mode), 'special file')}"


def read_text(
    path: str | Path,
    refusal: type[TelemetryError],
    expected: str,
    most_bytes: int,
    *,
    named: str = "",
    hint: str = "",
) -> str:
    """Return the UTF-8 text of a file; `refusal` says in one line why there is none.

    `expected` is the kind of file, which a message ends with. `named` is the argument that gave the path,
    which it starts with; `hint` follows "no such file".
    """
    place = f"{named} {path}" if named else str(path)
    try:
        if (what := why_no_file(path)) is not None:
            raise refusal(f"{place}: cannot be read: {what}; expected {expected}")
        if (size := Path(path).stat().st_size) > most_bytes:
            raise refusal(
                f"{place}: cannot be read: {size:,} bytes; expected {expected}, {most_bytes:,} at most"
            )
        return Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise refusal(f"{place}: no such file{hint}") from None
    except OSError as error:
        raise refusal(f"{place}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise refusal(f"{place}: cannot be read: it is not UTF-8 text; expected {expected}") from error
    except ValueError as error:  # a null character, or half of a surrogate pair
        raise refusal(f"{place}: no path: {error}") from error


def parse_toml(text: str) -> dict[str, Any]:
    """Return the document; ValueError, in one line, for what is no TOML or no number of 64 bits.

    Neither are keys and values that are nested deeper than DEEPEST.
    """
    if _LONG_KEY.search(text):
        raise ValueError(f"a key has more than {DEEPEST} parts")
    try:
        document = tomllib.loads(text, parse_float=_parse_float)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except ValueError as error:
        # Python's own text is about a setting of the interpreter.
        raise ValueError(_TOO_LARGE) if "integer string conversion" in str(error) else error from None
    for level in walk_levels(document):
        if any(isinstance(value, int) and value.bit_length() > _INTEGER_BITS for value in level):
            raise ValueError(_TOO_LARGE)
    return document


def walk_levels(value: object) -> Iterator[list[Any]]:
    """Yield the value, those in it, those in them, and so on; ValueError for more than DEEPEST levels."""
    level = [value]
    for _ in range(DEEPEST):
        yield level
        level = [
            part
            for each in level
            if isinstance(each, dict | list)
            for part in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return
    raise ValueError(_TOO_DEEP)


def read_toml(
    path: str | Path, refusal: type[TelemetryError], named: str = "", hint: str = ""
) -> dict[str, Any]:
    """Return the document in a TOML file; `refusal`, `named` and `hint` as in `read_text`."""
    text = read_text(path, refusal, "a TOML file", _MOST_TOML_BYTES, named=named, hint=hint)
    try:
        return parse_toml(text)
    except ValueError as error:
        raise refusal(f"{named} {path}: not TOML: {error}".lstrip()) from error


def _parse_float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number) and "inf" not in digits:
        raise ValueError(f"{digits} is beyond float64")
    return number


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; it replaces `path`, or is removed if the block raises.

    Raises ReportError when the folder cannot be written.
    """
    target = Path(path)
    try:
        if (target.exists() or target.is_symlink()) and (what := why_no_file(target)) not in (
            None,
            "a folder",
        ):
            # It would be gone: a rename replaces a device as it does a file.
            raise ReportError(f"{target}: cannot be written: {what} is there")
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = locks.hidden_file(target)
    except OSError as error:
        raise ReportError(f"{target}: cannot be written: {error.strerror or error}") from error
    part = lock.path
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        if not lock.is_sure:
            lock.end()  # some systems rename no file that is open
        part.replace(target)
    except OSError as error:
        raise ReportError(f"{target}: cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
        lock.end()


def why_not_utf8(path: str | Path) -> str | None:
    """Return that the name is not UTF-8, which programs in other languages need; None when it is."""
    try:
        str(Path(path).absolute()).encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8; choose another folder"
    return None


def why_unwritable(folder: str | Path) -> str | None:
    """Return why no file can be made in `folder`, which need not exist yet; None when it seems possible.

    Nothing is made or changed, so that a capture can be refused before it runs.
    """
    for place in (Path(folder), *Path(folder).absolute().parents):
        try:
            if not place.exists():
                continue
        except OSError as error:
            return error.strerror or str(error)
        if not place.is_dir():
            return f"{place} is not a folder"
        allowed = os.access(place, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)
        return None if allowed else f"no permission to write in {place}"
    return None
