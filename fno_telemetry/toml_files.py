"""TOML files that a user writes by hand: read whole, or refused in one line."""

import tomllib
from pathlib import Path
from typing import Any

from fno_telemetry.errors import TelemetryError


def read_toml(
    path: str | Path, refusal: type[TelemetryError], named: str = "", hint: str = ""
) -> dict[str, Any]:
    """Return the document; `refusal` says in a line why there is none.

    `named` stands before the path, as the option that gave it; `hint` behind "no such file".
    """
    place = f"{named} {path}" if named else str(path)
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise refusal(f"{place}: no such file{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise refusal(f"{place}: cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise refusal(f"{place}: not TOML: {error}") from error
