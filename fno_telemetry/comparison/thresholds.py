"""The thresholds of `compare`: for a difference, and for a change that is worse. Read from a TOML file."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fno_telemetry.errors import OptionError
from fno_telemetry.files import read_toml
from fno_telemetry.wording import find_near_names, hint_at_names

_TABLES = ("compare", "diagnose")


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of `compare`. The defaults separate a step of healthy training from a collapse."""

    distance: float = 0.02
    """Distance in decades between the distributions of log10 |x|; at this value a layer is different."""
    share: float = 0.02
    """Change of a share (signs, zeros, frequencies, branches); at this value a layer is different."""
    scale: float = 10.0
    """Factor by which a layer's rms or a block's gain grows or shrinks; at this value it is worse.

    An rms within the range of scales that the network had before is not worse."""
    of_scales: float = 3.0
    """Factor beyond the network's largest rms up to which a layer that grew counts as within its range."""
    lost: float = 0.1
    """Remaining share of a sample variation, an update or a branch; at this value it is worse."""
    dead: float = 0.2
    """Increase of the share of dead or constant channels; at this value it is worse."""
    dead_of_activations: float = 0.9
    """Share of such channels from which on an increase is worse in an activation function or a module without
    weights, which may end with one: some dead channels are usual after a ReLU."""
    error: float = 1.5
    """Factor by which the relative L2 error against the target grows; at this value it is worse."""
    far: float = 100.0
    """Factor beyond the network's range of rms, or by which a sample variation or an update fell; at this
    value it is worse also while the run learns."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise OptionError(f"threshold {field.name} = {value!r}; expected a number above 0")
        for name in ("scale", "error", "far"):
            if getattr(self, name) <= 1:
                raise OptionError(f"threshold {name} = {getattr(self, name)!r}; expected a factor above 1")


def read_threshold_tables(path: str | Path) -> dict[str, Any]:
    """Return the tables of a TOML file; OptionError in one line, also where a table's name is misspelled.

    Tables of other programs are left alone.
    """
    document = read_toml(path, OptionError, "`thresholds`")
    for name in document:
        if name not in _TABLES and find_near_names(name, _TABLES):
            hint = hint_at_names(name, _TABLES)
            raise OptionError(f"`thresholds` {path}: no table of thresholds is called {name!r}. {hint}")
    return document


def read_thresholds(path: str | Path) -> Thresholds:
    """Read `[compare]` of a TOML file; missing thresholds keep their defaults. OptionError in one line."""
    document = read_threshold_tables(path)
    table = document.get("compare", {})
    known = {field.name for field in dataclasses.fields(Thresholds)}
    if not isinstance(table, dict):
        raise OptionError(f"`thresholds` {path}: [compare] must be a table")
    for name in table:
        if name not in known:
            raise OptionError(
                f"`thresholds` {path}: no threshold is called {name!r}. {hint_at_names(name, sorted(known))}"
            )
    try:
        return Thresholds(**table)
    except OptionError as error:
        raise OptionError(f"`thresholds` {path}: {error}") from error
