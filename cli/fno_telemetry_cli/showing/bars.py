"""Bars and profiles made of characters, for terminals."""

from collections.abc import Sequence
from statistics import median

from rich.text import Text

from fno_telemetry_cli.showing.terminal import Screen

_UP, _RIGHT = "▁▂▃▄▅▆▇█", "▏▎▍▌▋▊▉█"
_UP_ASCII = ".:-=+*#@"
_PARTS = len(_UP)  # that a cell is divided into

PLAIN, RISING, HIGH = "cyan", "yellow", "red"
"""The colours of a bar: of any share; of one that should be low; of one that should be and is not."""


def bar(share: float | None, cells: int, screen: Screen, *, should_be_low: bool = False) -> Text:
    """Return a share from 0 to 1 as a bar: vertical if it has a single cell, else horizontal.

    A share above zero always has a visible bar.
    """
    if share is None or not share > 0:
        return Text(" " * cells)
    most = cells * _PARTS
    parts = max(1, min(round(share * most), most))
    style = (HIGH if share >= 1 / 2 else RISING) if should_be_low else PLAIN
    if not screen.takes_blocks:
        filled = -(-parts // _PARTS) if cells > 1 else 1
        drawn = _UP_ASCII[parts - 1] if cells == 1 else "#" * filled
    elif cells == 1:
        drawn = _UP[parts - 1]
    else:
        whole, rest = divmod(parts, _PARTS)
        drawn = _RIGHT[-1] * whole + (_RIGHT[rest - 1] if rest else "")
    return Text(drawn.ljust(cells), style=style)


def profile(values: Sequence[float | None], highest: float, cells: int, screen: Screen) -> str:
    """Return values in order as columns from 0 to `highest`, at most as many as `cells`.

    Of more values, each cell has the one of its stretch that is furthest from the median of all, so that a
    single odd one is seen. Undefined values are blank; values below zero are drawn as zero.
    """
    known = [value for value in values if value is not None]
    if not known:
        return ""
    middle, count = median(known), min(cells, len(values))
    letters = _UP if screen.takes_blocks else _UP_ASCII
    drawn = []
    for cell in range(count):
        stretch = values[cell * len(values) // count : (cell + 1) * len(values) // count]
        defined = [value for value in stretch if value is not None]
        if not defined:
            drawn.append(" ")
            continue
        value = max(defined, key=lambda each: abs(each - middle))
        share = value / highest if highest > 0 else 0.0
        drawn.append(letters[max(0, min(_PARTS - 1, int(share * _PARTS)))])
    return "".join(drawn)
