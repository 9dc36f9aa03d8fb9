"""Files: written whole or not at all; TOML files that a user wrote, read or refused in one line."""

import contextlib
import os
import secrets
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fno_telemetry.errors import ReportError, TelemetryError


def read_toml(
    path: str | Path, refusal: type[TelemetryError], named: str = "", hint: str = ""
) -> dict[str, Any]:
    """Return the document; `refusal` says in one line why there is none.

    `named` is the argument that gave the path, which a message starts with; `hint` follows "no such file".
    """
    place = f"{named} {path}" if named else str(path)
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise refusal(f"{place}: no such file{hint}") from None
    except OSError as error:
        raise refusal(f"{place}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise refusal(f"{place}: cannot be read: it is not UTF-8 text; save it as TOML") from error
    except tomllib.TOMLDecodeError as error:
        raise refusal(f"{place}: not TOML: {error}") from error


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; it replaces `path`, or is removed if the block raises.

    Raises ReportError when the folder cannot be written.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.parent / f".{target.name}.{secrets.token_hex(4)}.part"
        # Opened the way any new file is, so that the report gets the permissions the user's umask gives.
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise ReportError(f"{target}: cannot be written: {error.strerror or error}") from error
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        raise ReportError(f"{target}: cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


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
