"""From where on a difference counts: as one, and as worse. Readable from a TOML file."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from fno_telemetry.errors import OptionError
from fno_telemetry.files import read_toml


@dataclass(frozen=True)
class Thresholds:
    """Limits of `compare`. The defaults tell a step of healthy training from a collapse."""

    distance: float = 0.02
    """Decades between the distributions of log10 |x|: from here on a layer is different."""
    share: float = 0.02
    """Change of a share (signs, zeros, frequencies, branches): from here on a layer is different."""
    scale: float = 10.0
    """Factor by which a layer's rms, or a block's gain, grew or shrank: from here on it is worse.

    An rms that stays within the scales that the network had before is not."""
    lost: float = 0.1
    """What is left of a sample variation, an update or a branch: at this share of before it is worse."""
    dead: float = 0.2
    """Rise of the share of dead or constant channels: from here on it is worse."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise OptionError(f"threshold {field.name} = {value!r}: a number above 0 was expected")
        if self.scale <= 1:
            raise OptionError(f"threshold scale = {self.scale!r}: a factor above 1 was expected")


def read_thresholds(path: str | Path) -> Thresholds:
    """Read `[compare]` of a TOML file; what it leaves out keeps its default. OptionError in one line."""
    document = read_toml(path, OptionError, "`thresholds`")
    table = document.get("compare", {})
    known = {field.name for field in dataclasses.fields(Thresholds)}
    if not isinstance(table, dict):
        raise OptionError(f"`thresholds` {path}: [compare] must be a table")
    for name in table:
        if name not in known:
            raise OptionError(
                f"`thresholds` {path}: no threshold {name!r}; known: {', '.join(sorted(known))}"
            )
    try:
        return Thresholds(**table)
    except OptionError as error:
        raise OptionError(f"`thresholds` {path}: {error}") from error
