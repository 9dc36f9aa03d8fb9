"""The pictures that dashboards show of a run, in the order in which to look at them, and its page.

They are made at the end of a run, of what `KeptSeries` kept: at most as many as NAMES, whatever its length.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from fno_telemetry.errors import MissingExtra
from fno_telemetry.sinks.kept_series import KeptSeries
from fno_telemetry.sinks.overview import select_overview
from fno_telemetry.wording import describe_error, to_one_line

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from fno_telemetry.pictures import Picture

_INTERRUPTED = "the program was interrupted"

GROUP = "pictures"
"""What the keys of pictures begin with."""

PAGE = f"{GROUP}/page"
"""The key of the page."""

BY_STEP = (
    "low_frequency_fraction",
    "spectral_share",
    "update_ratio",
    "rms",
    "sample_variation",
    "dead_channel_fraction",
    "grad_norm",
    "update_to_weight",
)
"""The numbers that have a map, the most telling first."""

NAMES = ("depth", "spectrum", "curves", *BY_STEP)
"""The pictures: two of the last record, all layers over the steps, and a map of each number by step."""

MOST_PAGE_BYTES = 4_000_000
"""A page of 50 layers and 200 steps has less than 1 MB."""

DOTS_PER_INCH = 110

_LONGEST_REASON = 240


@dataclass(frozen=True)
class Drawn:
    """A picture under its key, as (height, width, 3) red, green and blue, and how to read it."""

    key: str
    pixels: "npt.NDArray[np.uint8]"
    caption: str


def are_possible() -> bool:
    """Whether pictures can be made, as far as can be seen without importing anything."""
    return find_spec("matplotlib") is not None


def draw(series: KeptSeries) -> tuple[list[Drawn], str | None]:
    """Return the pictures of a run, and why there are no more, in one line.

    The same records give the same pictures. A picture that cannot be drawn costs no number.
    """
    drawn: list[Drawn] = []
    if _is_interrupted():
        return [], _INTERRUPTED
    try:
        for name, picture in _list_pictures(series):
            if picture is not None:
                pixels = picture.pixels(dots_per_inch=DOTS_PER_INCH)
                drawn.append(Drawn(key_of(name), pixels, f"{picture.title}. {picture.caption}"))
    except MissingExtra as error:
        return [], str(error)
    except Exception as error:  # noqa: BLE001 - matplotlib may raise anything, as with a broken font
        return drawn, _describe(error)
    return drawn, None


def make_page(series: KeptSeries) -> tuple[str | None, str | None]:
    """Return the page of a run as HTML that loads nothing; or None and why there is none, in one line."""
    if series.last is None:
        return None, None
    if _is_interrupted():
        return None, _INTERRUPTED
    from fno_telemetry.page.rendering import NEEDED, render_page

    if not all(find_spec(name) for name in ("jinja2", "matplotlib")):
        return None, NEEDED
    try:
        text = render_page(series.records, last=series.last)
    except Exception as error:  # noqa: BLE001 - matplotlib and jinja2 may raise anything
        return None, _describe(error)
    if len(text.encode()) > MOST_PAGE_BYTES:
        return None, "it would be too large; `fno-telemetry view DIR --html FILE` writes it"
    return text, None


def _is_interrupted() -> bool:
    """Whether the program is ending by Ctrl-C: nobody waits for pictures then.

    Python forgets that it was interrupted when source text is compiled, as imports of matplotlib do: its exit
    status would change. In a session that goes on after an exception, `sys.ps1` is there.
    """
    return getattr(sys, "last_type", None) is KeyboardInterrupt and not hasattr(sys, "ps1")


def key_of(name: str) -> str:
    """Return the key of a picture; dashboards sort by it, so its number is the picture's place in NAMES."""
    return f"{GROUP}/{NAMES.index(name) + 1:02d}_{name}"


def _list_pictures(series: KeptSeries) -> "Iterator[tuple[str, Picture | None]]":
    if series.last is None:
        return
    from fno_telemetry import pictures

    shown = select_overview(series.last)
    records = series.records
    yield "depth", pictures.depth_profile(shown)
    yield "spectrum", pictures.spectrum_by_layer(shown)
    yield "curves", pictures.curves_by_step(records)
    for name in BY_STEP:
        # Where no channel ever died, a map of zeros would say nothing.
        if name != "dead_channel_fraction" or any(
            module.stats.get(name) for record in records for module in record.modules
        ):
            yield name, pictures.statistic_by_step(records, name)


def _describe(error: Exception) -> str:
    return to_one_line(f"they cannot be drawn: {describe_error(error)}", _LONGEST_REASON)
