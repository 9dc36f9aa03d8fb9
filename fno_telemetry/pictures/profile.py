"""The numbers that one looks at first, with depth as a colour: the last record by layer, and all by step."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fno_telemetry.findings import Finding
from fno_telemetry.pictures.canvas import (
    SMALL,
    Canvas,
    decade_text,
    mark_rows,
    row_panels,
    set_ticks,
    value_scale,
)
from fno_telemetry.pictures.columns import collect_numbers, name_steps, thin
from fno_telemetry.pictures.maps import Grid, colours_of_depth
from fno_telemetry.pictures.picture import Picture
from fno_telemetry.pictures.rows import Row, block_rows, layer_rows
from fno_telemetry.pictures.themes import Theme
from fno_telemetry.quantities import SHARE, look_up
from fno_telemetry.records import CaptureRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = (
    ("low_frequency_fraction", "low-frequency share"),
    ("spectral_share", "spectral share"),
    ("rms", "rms"),
)
"""The numbers that have a panel, and what stands above it."""

_HEIGHT = 3.3  # inches
_DOT = 5.0  # points across
_BAR = 0.62  # inches for the scale of colours with its words
_AXIS = 0.54  # inches for the numbers to the left of a panel
_RIGHT = 0.24  # inches for half of a long number below the last panel
_MOST_DECADES = 14
_MOST_POINTS = 8  # records; of more, dots hide the lines


def depth_profile(record: CaptureRecord, findings: Iterable[Finding] | None = None) -> Picture | None:
    """Return the low-frequency share, the share of the spectral branch and the rms of each layer.

    Dots have the colour of their depth, as lines have in `curves_by_step`. None without any of these numbers.
    """
    rows = layer_rows(record, findings)
    of_blocks = {row.place: row for row in block_rows(record)}
    found = {
        name: [_number(row, of_blocks.get(row.place), name) for row in rows]
        for name, _ in SHOWN
        if any(_number(row, of_blocks.get(row.place), name) is not None for row in rows)
    }
    if not found:
        return None
    colours = colours_of_depth(len(rows))
    shares = _find_shares(record)

    def draw(theme: Theme) -> Canvas:
        titles = [(title, 1.0) for name, title in SHOWN if name in found]
        canvas, panels = row_panels(theme, rows, titles, right=_RIGHT)
        for axes, (name, values) in zip(panels, found.items(), strict=True):
            mark_rows(canvas, axes, rows)
            known = [(value, index) for index, value in enumerate(values) if value is not None]
            if name in shares:
                axes.set_xlim(-0.04, 1.04)
                set_ticks(axes, [0, 0.5, 1], ["0", "0.5", "1"])
                axes.set_xlabel("share of energy")
            else:
                value_scale(axes, [value for value, _ in known], theme.muted)
                axes.set_xlabel("x")
            axes.plot([v for v, _ in known], [i for _, i in known], color=theme.grid, linewidth=1.2, zorder=1)
            axes.scatter(
                [value for value, _ in known],
                [index for _, index in known],
                s=_DOT**2,
                c=[colours[index] for _, index in known],
                edgecolors=theme.muted,
                linewidths=0.5,
                zorder=3,
            )
        return canvas

    return Picture(
        name="depth",
        title="Profile by depth",
        caption="From the input at the top to the output at the bottom; dark is near the input, light is "
        "near the output. The spectral share is of the blocks.",
        alt=f"{', '.join(title for name, title in SHOWN if name in found)} of {len(rows)} layers.",
        draw=draw,
    )


def curves_by_step(
    records: Sequence[CaptureRecord], findings: Iterable[Finding] | None = None
) -> Picture | None:
    """Return the same numbers over the steps, a line for each layer in the colour of its depth.

    None for fewer than two records, and without any of these numbers.
    """
    records = thin(records)
    if len(records) < 2:
        return None
    found = {
        (name, title): collected
        for name, title in SHOWN
        if (collected := collect_numbers(records, name, findings))[0]
    }
    if not found:
        return None
    layers = layer_rows(records[-1])
    shares = _find_shares(records[-1])

    def draw(theme: Theme) -> Canvas:
        canvas = Canvas(theme, _HEIGHT)
        room = (canvas.width - _BAR - 0.14 - _AXIS * len(found)) / len(found)
        for index, ((name, title), (rows, numbers)) in enumerate(found.items()):
            left = _AXIS + index * (room + _AXIS)
            axes = canvas.panel(left, 0.52, room, _HEIGHT - 0.86, title)
            decades = None
            if name not in shares:
                decades = _find_decades(value for row in numbers for value in row if value is not None)
            # On a scale by decades, what is 0 lies on its lower end.
            least = -np.inf if decades is None else 10.0 ** decades[0]
            _draw_lines(axes, theme, _colours_of(rows, layers), numbers, least)
            _scale(axes, decades, name in shares)
            axes.set_xlim(-0.5, len(records) - 0.5)
            name_steps(axes, theme, records, most=3)
        _draw_depth(canvas)
        return canvas

    return Picture(
        name="curves",
        title="Layers over the steps",
        caption="A line for each layer, of the spectral share for each block: dark is near the input, light "
        "is near the output. An rms of 0 lies on the lower edge.",
        alt=f"{', '.join(title for _, title in found)} of {len(layers)} layers in {len(records)} records.",
        draw=draw,
    )


def _number(row: Row, block: Row | None, statistic: str) -> float | None:
    """Return a number of a layer, or of the block that it is."""
    number = row.number(statistic)
    return block.number(statistic) if number is None and block is not None else number


def _find_shares(record: CaptureRecord) -> set[str]:
    known = look_up([name for name, _ in SHOWN], record.quantities)
    return {name for name, quantity in known.items() if quantity.unit == SHARE}


def _colours_of(rows: Sequence[Row], layers: Sequence[Row]) -> Grid:
    """Return the colours of rows by their depth; of blocks that are no layers, by their order."""
    depth = {row.place: index for index, row in enumerate(layers)}
    if all(row.place in depth for row in rows):
        return colours_of_depth(len(layers))[[depth[row.place] for row in rows]]
    return colours_of_depth(len(rows))


def _draw_lines(
    axes: "Axes",
    theme: Theme,
    colours: Grid,
    numbers: Sequence[Sequence[float | None]],
    least: float,
) -> None:
    for colour, values in zip(colours, numbers, strict=True):
        axes.plot(
            range(len(values)),
            [None if value is None else max(value, least) for value in values],  # type: ignore[arg-type]
            color=tuple(colour),
            linewidth=1.3 if len(numbers) <= 20 else 0.9,
            marker="o" if len(values) <= _MOST_POINTS else "",
            markersize=2.5,
        )
    axes.grid(axis="y", color=theme.grid, linewidth=0.6)


def _find_decades(values: Iterable[float]) -> tuple[int, int] | None:
    """Return the decades of a logarithmic scale; None where a number is negative, or all are 0."""
    known = [*values]
    positive = [value for value in known if value > 0]
    if not positive or min(known) < 0:
        return None
    low, high = int(np.floor(np.log10(min(positive)))), int(np.ceil(np.log10(max(positive))))
    return max(low, high - _MOST_DECADES), max(high, low + 1)


def _scale(axes: "Axes", decades: tuple[int, int] | None, is_share: bool) -> None:
    """Give y a scale: shares from 0 to 1, other numbers by decades where there are any."""
    if is_share:
        axes.set_ylim(-0.03, 1.03)
        set_ticks(axes, [0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"], vertical=True)
    elif decades is not None:
        low, high = decades
        axes.set_yscale("log")
        axes.set_ylim(10.0**low / 1.3, 10.0**high)
        shown = range(low, high + 1, max(1, (high - low + 4) // 5))
        set_ticks(axes, [10.0**d for d in shown], [decade_text(10.0**d) for d in shown], vertical=True)


def _draw_depth(canvas: Canvas) -> None:
    """Draw the colours from input to output at the right edge."""
    theme = canvas.theme
    bar = canvas.panel(canvas.width - _BAR - 0.02, 0.78, 0.12, _HEIGHT - 1.38)
    colours = colours_of_depth(128).reshape(-1, 1, 4)
    bar.imshow(colours, aspect="auto", extent=(0, 1, 0, 1), interpolation="none")
    set_ticks(bar, [], [])
    set_ticks(bar, [], [], vertical=True)
    for height, text, side in ((1.0, "input", "bottom"), (0.0, "output", "top")):
        bar.annotate(
            text,
            (0, height),
            xycoords="axes fraction",
            xytext=(0, 3 if side == "bottom" else -3),
            textcoords="offset points",
            color=theme.muted,
            fontsize=SMALL,
            verticalalignment=side,
        )
