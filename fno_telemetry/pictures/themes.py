"""The colours of pictures: on light, on dark, or whichever of the two a browser prefers.

Blue and vermilion stay apart for colour-blind readers [1] and in grey, where one is darker. Maps use
matplotlib's cividis, which gets lighter from its lowest value to its highest for every reader [2].

[1] Okabe and Ito: Color Universal Design, 2008.
[2] Nuñez, Anderton and Renslow: Optimizing colormaps with consideration for color vision deficiency, 2018.
"""

from dataclasses import dataclass, fields
from typing import Literal

ThemeName = Literal["light", "dark", "auto"]
"""Colours for a light page, for a dark one, or those that the browser prefers."""

MAP = "cividis"
"""The colours of maps; in the middle they are grey, so maps of differences have them too."""


@dataclass(frozen=True)
class Theme:
    """Colours as #rrggbb."""

    ink: str
    muted: str
    grid: str
    page: str
    first: str
    second: str
    band: str
    alert: str
    marked: str


LIGHT = Theme(
    ink="#1b1f24",
    muted="#57606a",
    grid="#d8dee4",
    page="#ffffff",
    first="#0b5394",
    second="#d55e00",
    band="#a8c8ea",
    alert="#a40e26",
    marked="#fbe3df",
)
DARK = Theme(
    ink="#e6edf3",
    muted="#9da7b1",
    grid="#373e47",
    page="#0d1117",
    first="#79b8ff",
    second="#e0701a",
    band="#2a517c",
    alert="#ff8a80",
    marked="#4a2326",
)
# Colours that stand for names until they are replaced by CSS variables.
_NAMES = [field.name for field in fields(Theme)]
STAND_INS = Theme(*(f"#fe01{index:02x}" for index in range(len(_NAMES))))


def colours_of(theme: ThemeName) -> Theme:
    """Return the colours to draw with; those of "auto" are stand-ins."""
    return {"light": LIGHT, "dark": DARK, "auto": STAND_INS}[theme]


def name_colours(svg: str) -> str:
    """Return a picture that was drawn with stand-ins, its colours as CSS variables of these names."""
    for name in _NAMES:
        svg = svg.replace(getattr(STAND_INS, name), f"var(--{name})")
    return svg


def style_rules(scope: str) -> str:
    """Return CSS that gives the variables their colours within `scope`, by what the browser prefers."""
    light, dark = ("".join(f"--{name}:{getattr(theme, name)};" for name in _NAMES) for theme in (LIGHT, DARK))
    return f"{scope}{{{light}}}@media (prefers-color-scheme:dark){{{scope}{{{dark}}}}}"
