"""The figure that a picture is drawn on: rows of layers, panels next to each other, scales and marks.

Everything is placed by inches, so that names and panels cannot overlap however many layers there are.
"""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fno_telemetry.errors import MissingExtra
from fno_telemetry.pictures.rows import Row, columns_of, shorten
from fno_telemetry.pictures.themes import Theme

try:
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator
except ImportError as error:
    raise MissingExtra("Pictures need matplotlib: pip install 'fno-telemetry[plots]'.") from error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 7.5
"""Inches; a page shows them as 720 points of a screen."""

TEXT, SMALL = 9.0, 8.0  # points
_FONTS = ["DejaVu Sans", "Verdana", "Arial", "sans-serif"]
_TOP, _BOTTOM, _RIGHT, _GAP = 0.34, 0.52, 0.14, 0.22
LETTER = 0.0735  # inches of a letter of SMALL on the average, and somewhat more
_MOST_HEIGHT = 12.0  # of all rows together
_NARROWEST_LABEL = 0.118  # inches from one name to the next
_MOST_DECADES = 14
_BEFORE_PANEL = 0.06  # inches between a name and its row
_BAR = 0.75  # inches of a scale of colours with its numbers
_TICKS = 4
_LARGE_RATIO = 12  # of the largest to the middle number: then a scale is logarithmic


@contextlib.contextmanager
def drawing(salt: str) -> Iterator[None]:
    """Draw and write within this block: by our own settings, whatever the user's are, and these stay."""
    ours = {
        "svg.fonttype": "none",  # text that can be found and read aloud
        "svg.hashsalt": salt,
        "text.parse_math": False,  # a dollar in a name is a dollar
        "font.family": ["sans-serif"],
        "font.sans-serif": _FONTS,
        "font.size": TEXT,
        "axes.linewidth": 0.6,
        "axes.unicode_minus": True,
        "hatch.linewidth": 0.6,
        "path.simplify": False,
    }
    with style.context(["default", ours]), warnings.catch_warnings():
        # Letters that this font lacks are in another one of the reader's.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from")
        yield


def rasterize(figure: Figure, dots_per_inch: int) -> npt.NDArray[np.uint8]:
    """Return a figure as (height, width, 3) red, green and blue."""
    figure.set_dpi(dots_per_inch)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


class Canvas:
    """A figure with its colours; `full_names` are those of labels that were shortened, by their ids.

    `rows` are the names of all rows, and `rows_from_to` where they begin and end, as shares of the height
    from above.
    """

    def __init__(self, theme: Theme, height: float, width: float = WIDTH) -> None:
        self.theme = theme
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), facecolor=theme.page)
        self.full_names: dict[str, str] = {}
        self.rows: tuple[str, ...] = ()
        self.rows_from_to = (0.0, 1.0)

    def panel(self, left: float, bottom: float, width: float, height: float, title: str = "") -> "Axes":
        """Return axes at this place, in inches from the lower left corner."""
        box = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(box, facecolor="none")
        theme = self.theme
        axes.tick_params(colors=theme.muted, labelsize=SMALL, width=0.6, length=3)
        for spine in axes.spines.values():
            spine.set_color(theme.grid)
        if title:
            axes.set_title(title, loc="left", fontsize=TEXT, color=theme.ink, pad=5)
        return axes

    def name_rows(self, axes: "Axes", rows: Sequence[Row], inch_of_row: float) -> None:
        """Write the names to the left of the rows; of narrow rows every second or third, marked first."""
        every = max(1, int(np.ceil(_NARROWEST_LABEL / inch_of_row)))
        shown: list[int] = []
        for index in [i for i, row in enumerate(rows) if row.is_marked]:  # their names come first
            if not shown or index - shown[-1] >= every:
                shown.append(index)
        near = {other for index in shown for other in range(index - every + 1, index + every)}
        shown += [index for index in range(0, len(rows), every) if index not in near]
        # Not as ticks, each of which is five artists: of 60 rows that would take half of the time.
        left = -_BEFORE_PANEL / (axes.get_position().width * self.width)
        for index in shown:
            row = rows[index]
            label = axes.text(
                left,
                index,
                self._label(row),
                transform=axes.get_yaxis_transform(),
                fontsize=SMALL,
                color=self.theme.alert if row.is_marked else self.theme.ink,
                horizontalalignment="right",
                verticalalignment="center",
            )
            if shorten(row.name) != row.name:
                name = f"row{len(self.full_names)}"
                label.set_gid(name)
                self.full_names[name] = row.name

    def _label(self, row: Row) -> str:
        return f"! {shorten(row.name)}" if row.is_marked else shorten(row.name)

    def note(self, text: str) -> None:
        """Write a line into the lower left corner."""
        self.figure.text(0.08 / self.width, 0.06 / self.height, text, fontsize=SMALL, color=self.theme.muted)


def row_panels(
    theme: Theme,
    rows: Sequence[Row],
    titles: Sequence[tuple[str, float]],
    bars: Sequence[int] = (),
    right: float = _RIGHT,
) -> tuple[Canvas, list["Axes"]]:
    """Return a canvas with a panel for each title and share of the width, all with the same rows.

    The first row is the highest, so depth goes down as in a table. To the right of the panels in `bars` there
    is room for a scale of colours. `right` is the margin there, in inches.
    """
    inch_of_row = 0.2 if len(rows) <= 16 else 0.165 if len(rows) <= 41 else 0.135
    inch_of_row = min(inch_of_row, _MOST_HEIGHT / max(len(rows), 1))
    inside = max(inch_of_row * len(rows), 0.9)
    canvas = Canvas(theme, _TOP + inside + _BOTTOM)
    left = 0.16 + LETTER * max(columns_of(canvas._label(row)) for row in rows)
    room = WIDTH - left - right - _BAR * len(bars) - _GAP * (len(titles) - 1)
    total = sum(share for _, share in titles)
    panels = []
    for index, (title, share) in enumerate(titles):
        width = room * share / total
        axes = canvas.panel(left, _BOTTOM, width, inside, title)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks([])
        axes.xaxis.label.set_color(theme.muted)
        axes.xaxis.label.set_fontsize(SMALL)
        panels.append(axes)
        left += width + _GAP + (_BAR if index in bars else 0)
    canvas.name_rows(panels[0], rows, inside / len(rows))
    canvas.rows = tuple(row.name for row in rows)
    canvas.rows_from_to = (_TOP / canvas.height, (_TOP + inside) / canvas.height)
    return canvas, panels


def mark_rows(canvas: Canvas, axes: "Axes", rows: Sequence[Row]) -> None:
    """Give rows with an error or a warning a background."""
    for index, row in enumerate(rows):
        if row.is_marked:
            axes.axhspan(index - 0.5, index + 0.5, color=canvas.theme.marked, linewidth=0, zorder=0)


def value_scale(axes: "Axes", values: Sequence[float], colour: str) -> None:
    """Give x a scale on which these values can be told apart: linear, or by decades on both sides of 0.

    Zero is on it, since zero is a measurement.
    """
    sizes = sorted(abs(value) for value in values if value)
    if not sizes:
        axes.set_xlim(-1, 1)
        axes.set_xticks([0])
        return
    largest = sizes[-1]
    middle = sizes[len(sizes) // 2]
    low, high = min(0.0, *values), max(0.0, *values)
    span = high - low
    if middle * _LARGE_RATIO >= largest:
        axes.set_xlim(low - 0.04 * span, high + 0.04 * span)
        axes.locator_params(axis="x", nbins=_TICKS + 1, min_n_ticks=3)
    else:
        top = int(np.ceil(np.log10(largest)))
        # Of what is close to zero, the size hardly matters; a layer near it is seen to be near it.
        bottom = max(int(np.floor(np.log10(sizes[len(sizes) // 20]))), top - _MOST_DECADES)
        # But most layers are never so near: however far one explodes, the others do not look dead.
        bottom = min(bottom, int(np.floor(np.log10(middle))) - 1)
        axes.set_xscale("symlog", linthresh=10.0**bottom, linscale=0.5)
        sides = [side for side, end in ((1, high), (-1, low)) if end]
        stride = max(1, int(np.ceil((top - bottom) / (_TICKS / len(sides)))))
        # On a scale to both sides, the smallest decades are too close to 0 for a number of their own.
        least = bottom + (top - bottom) // 4 if len(sides) > 1 else bottom - 1 + (top - bottom) // 6
        decades = range(int(np.floor(np.log10(1.6 * largest))), least, -stride)
        found = sorted([0.0, *(side * 10.0**decade for side in sides for decade in decades)])
        ticks = [tick for tick in found if low * 1.6 <= tick <= high * 1.6]
        set_ticks(axes, ticks, [decade_text(tick) for tick in ticks])
        axes.set_xlim(min(low * 1.6, -(10.0**bottom) / 4), max(high * 1.6, 10.0**bottom / 4))
    axes.axvline(0, color=colour, linewidth=0.8, zorder=1)


def set_ticks(axes: "Axes", ticks: Sequence[float], texts: Sequence[str], vertical: bool = False) -> None:
    """Put these ticks, and no smaller ones, on an axis."""
    axis = axes.yaxis if vertical else axes.xaxis
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FixedFormatter(texts))
    axis.set_minor_locator(NullLocator())


def decade_text(value: float) -> str:
    """Return a power of ten as people write it: 0.01, 1, 1000, 1e−6."""
    if value == 0:
        return "0"
    exponent = round(np.log10(abs(value)))
    sign = "−" if value < 0 else ""
    if -3 <= exponent <= 4:
        return f"{sign}{10.0**exponent:g}"
    return f"{sign}1e{'−' if exponent < 0 else ''}{abs(exponent)}"


def choose_columns(texts: Sequence[str], most: int) -> list[int]:
    """Return the columns below which a text is written: at equal distances, fewer of long texts."""
    room = max(2, min(most, 56 // (max(map(len, texts)) + 2)))
    least = max(1, -(-len(texts) // room))
    strides = (factor * 10**power for power in range(9) for factor in (1, 2, 4, 5))
    return list(range(0, len(texts), next(stride for stride in strides if stride >= least)))
