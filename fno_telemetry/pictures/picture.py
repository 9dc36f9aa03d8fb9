"""A picture with its title and texts, as a figure of matplotlib, as SVG or as a file."""

import html
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
import numpy.typing as npt

from fno_telemetry.errors import NameNotFound, OptionError
from fno_telemetry.files import whole_file
from fno_telemetry.pictures.canvas import Canvas, drawing, rasterize
from fno_telemetry.pictures.themes import Theme, ThemeName, colours_of, name_colours, style_rules
from fno_telemetry.wording import hint_at_names, to_printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DOTS_PER_INCH = 150
_TAG = re.compile(r"<[a-zA-Z][^>]*>")
_BETWEEN_TAGS = re.compile(r">\s+<")
_STYLE = "stroke-linejoin:round;stroke-linecap:butt"
"""What matplotlib expects of everything that says nothing else."""
_NO_FACTS = dict.fromkeys(("Date", "Creator", "Format", "Type"))
"""What matplotlib writes about a file: the time, and its own version."""


@dataclass(frozen=True)
class Picture:
    """One picture; it is drawn when it is asked for.

    `name` is a short identifier, `caption` says how to read it, and `alt` says in words what it shows.
    """

    name: str
    title: str
    caption: str
    alt: str
    draw: Callable[[Theme], Canvas] = field(repr=False)

    def figure(self, theme: ThemeName = "light") -> "Figure":
        """Return a new figure of matplotlib, without a window and unknown to pyplot."""
        if theme == "auto":
            raise OptionError("a figure has the colours of one theme; expected light or dark")
        with drawing(self.name):
            return self.draw(colours_of(theme)).figure

    def svg(self, theme: ThemeName = "auto") -> str:
        """Return an `<svg>` element; the same record gives the same text.

        Names of layers are text in it, and one that was shortened shows in full under the pointer. With
        "auto" its colours are CSS variables with the names of `Theme`, which a page has to define.
        """
        with drawing(self.name):
            drawn = self.draw(colours_of(theme))
            written = io.StringIO()
            drawn.figure.savefig(written, format="svg", transparent=True, metadata=_NO_FACTS)
        text = written.getvalue()
        text = text[text.index("<svg") :]
        # A style element would be one of the whole page.
        text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
        for name, full in drawn.full_names.items():
            text = text.replace(f'<g id="{name}">', f'<g id="{name}"><title>{html.escape(full)}</title>')
        text = _TAG.sub(lambda tag: self._name_apart(tag[0]), _BETWEEN_TAGS.sub("><", text))
        words = html.escape(to_printable(f"{self.title}. {self.alt}"))
        head = f'<svg style="{_STYLE}" role="img" aria-label="{words}"'
        if drawn.rows:
            # So that a page can say what is under the pointer.
            first, last = drawn.rows_from_to
            head += f' data-rows="{first:.5f} {last:.5f}" data-names="{html.escape(json.dumps(drawn.rows))}"'
        text = text.replace("<svg", head, 1).strip()
        return name_colours(text) if theme == "auto" else text

    def pixels(
        self, theme: ThemeName = "light", dots_per_inch: int = _DOTS_PER_INCH
    ) -> npt.NDArray[np.uint8]:
        """Return the picture as (height, width, 3) red, green and blue; the same record gives the same."""
        with drawing(self.name):
            return rasterize(self.figure(theme), dots_per_inch)

    def save(self, path: str | Path, theme: ThemeName = "light") -> Path:
        """Write an `.svg` or a `.png`, whole or not at all; an SVG may have the theme "auto" as well."""
        target = Path(path)
        kind = target.suffix.lower()
        if kind == ".svg":
            text = self.svg(theme)
            if theme == "auto":
                start = text.index(">") + 1
                text = f"{text[:start]}<style>{style_rules('svg')}</style>{text[start:]}"
            content = f"{text}\n".encode()
        elif kind == ".png":
            with drawing(self.name):
                written = io.BytesIO()
                figure = self.figure(theme)
                figure.savefig(written, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
            content = written.getvalue()
        else:
            raise OptionError(f"{target}: a picture of an unknown kind; expected a name with .svg or .png")
        with whole_file(target) as part:
            part.write_bytes(content)
        return target

    def _repr_html_(self) -> str:
        # A notebook has a theme of its own, which the browser does not tell.
        return f'<div style="background:#fff;overflow-x:auto">{self.svg("light")}</div>'

    def _name_apart(self, tag: str) -> str:
        """Return a tag with its own and its target's id under this picture, as a page has several."""
        if tag.startswith(("<g ", "<image ")):  # nothing refers to these
            tag = re.sub(r' id="[^"]*"', "", tag)
        tag = " ".join(tag.split())
        return re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{self.name}-", tag)


class Pictures(Sequence[Picture]):
    """Pictures in the order in which to look at them; by position, or by name."""

    def __init__(self, pictures: Sequence[Picture | None]) -> None:
        self._pictures = tuple(picture for picture in pictures if picture is not None)

    @overload
    def __getitem__(self, key: int | str) -> Picture: ...

    @overload
    def __getitem__(self, key: slice) -> "Pictures": ...

    def __getitem__(self, key: int | str | slice) -> "Picture | Pictures":
        if isinstance(key, slice):
            return Pictures(self._pictures[key])
        if isinstance(key, int):
            return self._pictures[key]
        for picture in self._pictures:
            if picture.name == key:
                return picture
        raise NameNotFound(f"no picture {key!r} here. {hint_at_names(key, self.names)}")

    def __len__(self) -> int:
        return len(self._pictures)

    def __iter__(self) -> Iterator[Picture]:
        return iter(self._pictures)

    def __repr__(self) -> str:
        return f"<Pictures: {', '.join(self.names) or 'none'}>"

    @property
    def names(self) -> list[str]:
        """The names of the pictures."""
        return [picture.name for picture in self._pictures]

    def _repr_html_(self) -> str:
        parts = [
            f"<h4>{html.escape(picture.title)}</h4>{picture._repr_html_()}<p>{html.escape(picture.caption)}</p>"
            for picture in self._pictures
        ]
        return "".join(parts) or "<p>no pictures: the record has none of their numbers</p>"
