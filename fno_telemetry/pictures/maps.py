"""Maps: a colour for each row and column, and a scale of colours next to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.ticker import MaxNLocator

from fno_telemetry.pictures.canvas import SMALL, Canvas, decade_text, set_ticks
from fno_telemetry.pictures.themes import MAP

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Grid = npt.NDArray[np.float64]
"""(rows, columns); NaN where a number is undefined."""

_LARGE_RATIO = 30  # of the largest to the middle number: then colours are by decades
_MOST_DECADES = 30
_DEPTHS = (0.1, 0.85)  # of the colours: the others are hard to see on a dark page, or on a light one


@dataclass(frozen=True)
class ColourScale:
    """How numbers become colours, from `low` to `high`, which are decades if `decades`."""

    low: float
    high: float
    unit: str
    decades: bool = False

    @classmethod
    def fit(cls, grid: Grid, unit: str, share: bool = False) -> "ColourScale":
        """Return the scale for these numbers; from 0 to 1 for shares."""
        if share:
            return cls(0.0, 1.0, unit)
        known = grid[np.isfinite(grid)]
        positive = known[known > 0]
        if positive.size and not (known < 0).any():
            middle = np.median(positive)
            if positive.max() > _LARGE_RATIO * middle or positive.min() * _LARGE_RATIO < middle:
                return cls.by_decades(grid, unit)
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
        if high > low:
            return cls(low, high, unit)
        around = (abs(low) or 1.0) / 2
        return cls(low - around, low + around, unit)

    @classmethod
    def by_decades(cls, grid: Grid, unit: str, most: int = _MOST_DECADES) -> "ColourScale":
        """Return a logarithmic scale over all but the smallest 1 % of these, at most `most` decades."""
        positive = grid[np.isfinite(grid) & (grid > 0)]
        high = float(np.ceil(np.log10(positive.max()) - 1e-9)) if positive.size else 0.0
        least = np.quantile(positive, 0.01, method="lower") if positive.size else 0.1
        low = float(np.floor(np.log10(least) + 1e-9))
        return cls(max(min(low, high - 1), high - most), high, unit, decades=True)

    def place(self, grid: Grid) -> npt.NDArray[np.uint8]:
        """Return the number of the colour, 0 to 255, for each; that of NaN means nothing."""
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.log10(np.maximum(grid, 0)) if self.decades else grid
        part = (np.nan_to_num(values, nan=self.low, posinf=self.high, neginf=self.low) - self.low) / (
            self.high - self.low
        )
        return np.round(255 * np.clip(part, 0, 1)).astype(np.uint8)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Where numbers stand next to the colours, from 0 to 1, and how they are written."""
        if self.decades:
            stride = max(1, int(np.ceil((self.high - self.low) / 6)))
            decades = range(int(self.high), int(self.low) - 1, -stride)
            span = self.high - self.low
            return [((decade - self.low) / span, decade_text(10.0**decade)) for decade in decades]
        found = [float(tick) for tick in MaxNLocator(nbins=5).tick_values(self.low, self.high)]
        span = self.high - self.low
        inside = [tick for tick in found if self.low - span / 1e6 <= tick <= self.high + span / 1e6]
        return [((tick - self.low) / span, f"{tick:.3g}".replace("-", "−")) for tick in inside]


def draw_map(
    canvas: Canvas,
    axes: "Axes",
    grid: Grid,
    scale: ColourScale,
    across: tuple[float, float] | None = None,
    rows: tuple[float, float] | None = None,
) -> None:
    """Draw a map with its first row at the top, over these ranges of x and y; undefined numbers are hatched.

    By default columns and rows are numbered from 0, and rows go down.
    """
    low, high = across or (-0.5, grid.shape[1] - 0.5)
    bottom, top = rows or (grid.shape[0] - 0.5, -0.5)
    colours = colormaps[MAP](scale.place(grid))
    colours[..., 3] = np.isfinite(grid)
    if not np.isfinite(grid).all():
        axes.patch.set(facecolor="none", edgecolor=canvas.theme.grid, hatch="////", linewidth=0)
    extent = (low, high, bottom, top)
    axes.imshow(colours, aspect="auto", interpolation="none", extent=extent, zorder=1)
    axes.set_xlim(low, high)
    axes.set_ylim(bottom, top)


def draw_scale(canvas: Canvas, axes: "Axes", scale: ColourScale) -> None:
    """Draw the colours of a map from low to high to the right of its axes, with numbers and unit."""
    box = axes.get_position()
    inch = 1 / canvas.width
    height = min(box.height, 2.2 / canvas.height)
    bar = canvas.figure.add_axes((box.x1 + 0.1 * inch, box.y1 - height, 0.12 * inch, height))
    colours = colormaps[MAP](np.arange(255, -1, -1, dtype=np.uint8).reshape(-1, 1))
    bar.imshow(colours, aspect="auto", extent=(0, 1, 0, 1), interpolation="none")
    bar.set_xticks([])
    bar.yaxis.tick_right()
    set_ticks(bar, [at for at, _ in scale.ticks], [text for _, text in scale.ticks], vertical=True)
    bar.tick_params(colors=canvas.theme.muted, labelsize=SMALL, length=2, width=0.6)
    for spine in bar.spines.values():
        spine.set_color(canvas.theme.grid)
    if scale.unit:
        canvas.figure.text(
            box.x1 + 0.8 * inch,
            box.y1 + 0.09 / canvas.height,
            scale.unit,
            fontsize=SMALL,
            color=canvas.theme.muted,
            horizontalalignment="right",
        )


def colours_of_depth(count: int) -> Grid:
    """Return (count, 4) colours, from that of the input to that of the output."""
    found: Grid = colormaps[MAP](np.linspace(*_DEPTHS, max(count, 1)))
    return found


def stack(rows: Sequence[Sequence[float | None]]) -> Grid:
    """Return a grid of these rows, NaN for None."""
    return np.array([[np.nan if value is None else value for value in row] for row in rows], dtype=np.float64)
