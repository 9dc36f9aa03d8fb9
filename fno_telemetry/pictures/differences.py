"""Pictures of two records next to each other, with their difference."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fno_telemetry.pictures.canvas import Canvas, mark_rows, row_panels, set_ticks, value_scale
from fno_telemetry.pictures.maps import ColourScale, draw_map, draw_scale
from fno_telemetry.pictures.picture import Picture
from fno_telemetry.pictures.rows import Row, entries_by_place, layer_rows
from fno_telemetry.pictures.spectra import common_edges, energy_scale, name_frequencies, resample, spectrum_of
from fno_telemetry.pictures.themes import Theme
from fno_telemetry.records import CaptureRecord, TensorRecord
from fno_telemetry.wording import format_number, to_one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEAST_SHARE = 1e-6  # of energy: below it a ratio means nothing
_MOST_DECADES = 3.0
_LONGEST_NAME, _LONGEST_TITLE = 24, 14  # in a legend, and above a narrow map

Names = tuple[str, str]
"""What the two records are called."""


def size_difference(
    before: CaptureRecord, after: CaptureRecord, names: Names = ("before", "after")
) -> Picture | None:
    """Return the rms of each layer in both records, and the ratio; None where no layer has it in both."""
    pairs = _pairs(before, after)
    known = [
        (row, one, other)
        for row, entry in pairs
        if (one := entry.number("rms")) is not None and (other := row.number("rms")) is not None
    ]
    if not known:
        return None
    rows = [row for row, _, _ in known]
    ratios = [np.log10(other / one) if one and other else None for _, one, other in known]
    first, second = (to_one_line(name, _LONGEST_NAME) for name in names)

    def draw(theme: Theme) -> Canvas:
        canvas, [sizes, changes] = row_panels(theme, rows, [("rms of each layer", 2.4), ("change", 1.4)])
        for axes in (sizes, changes):
            mark_rows(canvas, axes, rows)
        for index, (_, one, other) in enumerate(known):
            sizes.plot([one, other], [index, index], color=theme.grid, linewidth=1.4, zorder=1)
        numbers = range(len(known))
        sizes.plot(
            [one for _, one, _ in known],
            numbers,
            "o",
            markersize=5,
            markerfacecolor="none",
            markeredgecolor=theme.second,
            zorder=2,
        )
        sizes.plot([other for *_, other in known], numbers, "o", markersize=4, color=theme.first, zorder=3)
        value_scale(sizes, [value for _, one, other in known for value in (one, other)], theme.muted)
        sizes.set_xlabel(f"○ {first}   ● {second}")
        for index, ratio in enumerate(ratios):
            if ratio is not None:
                colour = theme.first if ratio >= 0 else theme.second
                changes.barh(index, ratio, height=0.62, color=colour, linewidth=0, zorder=2)
            elif known[index][1] or known[index][2]:
                text = "now 0" if known[index][1] else "was 0"
                changes.text(
                    0,
                    index,
                    f" {text}",
                    color=theme.alert,
                    fontsize=7.5,
                    verticalalignment="center",
                    zorder=3,
                )
        _name_ratios(changes, [ratio for ratio in ratios if ratio is not None], theme)
        return canvas

    far = max(enumerate(ratios), key=lambda one: abs(one[1] or 0))
    most = (
        f"The largest change is ×{format_number(10.0 ** far[1])} in {rows[far[0]].name}"
        if far[1]
        else "No change"
    )
    return Picture(
        name="size-difference",
        title="Size of the values, before and after",
        caption=f"Rings are {first}, dots {second}. A bar to the right means that values grew, to the left "
        "that they shrank.",
        alt=f"{most}, in {len(rows)} layers that both records have.",
        draw=draw,
    )


def spectrum_difference(
    before: CaptureRecord, after: CaptureRecord, names: Names = ("before", "after")
) -> Picture | None:
    """Return the energy by frequency in both records, and by how many decades it changed.

    None where no layer has a spectrum in both.
    """
    pairs = [
        (row, one, other)
        for row, entry in _pairs(before, after)
        if (one := spectrum_of(entry.entry)) is not None and (other := spectrum_of(row.entry)) is not None
    ]
    if not pairs:
        return None
    rows = [row for row, _, _ in pairs]
    edges = common_edges([spectrum for _, one, other in pairs for spectrum in (one, other)])
    grids = [
        np.array([resample(one, edges) for _, one, _ in pairs]),
        np.array([resample(other, edges) for *_, other in pairs]),
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        lowest = [np.where(np.isfinite(grid), np.maximum(grid, _LEAST_SHARE), np.nan) for grid in grids]
        change = np.clip(np.log10(lowest[1] / lowest[0]), -_MOST_DECADES, _MOST_DECADES)
    titles = [to_one_line(name, _LONGEST_TITLE) for name in names]

    def draw(theme: Theme) -> Canvas:
        shares = [(titles[0], 1.0), (titles[1], 1.0), ("change in decades", 1.0)]
        canvas, [left, middle, right] = row_panels(theme, rows, shares, bars=[1, 2])
        scale = energy_scale(grids[0], "share")
        for axes, grid in ((left, grids[0]), (middle, grids[1])):
            draw_map(canvas, axes, grid, scale, across=(0.0, float(edges[-1])))
        draw_scale(canvas, middle, scale)
        decades = ColourScale(-_MOST_DECADES, _MOST_DECADES, "")
        draw_map(canvas, right, change, decades, across=(0.0, float(edges[-1])))
        draw_scale(canvas, right, decades)
        for axes in (left, middle, right):
            name_frequencies(axes, float(edges[-1]))
            axes.set_xlabel("cycles / grid point")
        return canvas

    most = float(np.nanmax(np.abs(change))) if np.isfinite(change).any() else 0.0
    return Picture(
        name="spectrum-difference",
        title="Energy by frequency, before and after",
        caption="Shares of each layer's energy. To the right, grey is no change, light is more energy than "
        "before, dark is less; 1 is ten times as much.",
        alt=f"Shares of energy change by at most {format_number(most)} decades, in {len(rows)} layers.",
        draw=draw,
    )


def _pairs(before: CaptureRecord, after: CaptureRecord) -> list[tuple[Row, Row]]:
    """Return the rows of the later record that the earlier one has too, each with that one."""
    earlier = entries_by_place(before)
    return [
        (row, Row(row.place, entry))
        for row in layer_rows(after)
        if isinstance(entry := earlier.get(row.place), TensorRecord)
    ]


def _name_ratios(axes: "Axes", ratios: Sequence[float], theme: Theme) -> None:
    """Give x a scale of factors: ÷10, 1, ×10."""
    most = max((abs(ratio) for ratio in ratios), default=0.0)
    if most <= 0.5:
        ticks, texts = [float(np.log10(1 / 2)), 0.0, float(np.log10(2))], ["÷2", "1", "×2"]
        most = max(most, 0.33)
    else:
        stride = max(1, int(np.ceil(most / 2)))
        inside = range(stride, max(int(np.floor(most * 1.1)), 1) + 1, stride)
        ticks = [*(-float(tick) for tick in reversed(inside)), 0.0, *map(float, inside)]
        texts = [
            f"÷{_power(-tick)}" if tick < 0 else "1" if tick == 0 else f"×{_power(tick)}" for tick in ticks
        ]
        most = max(most, 1.0)
    set_ticks(axes, ticks, texts)
    axes.set_xlim(-1.15 * most, 1.15 * most)
    axes.axvline(0, color=theme.muted, linewidth=0.8, zorder=1)
    axes.set_xlabel("rms after / rms before")


def _power(exponent: float) -> str:
    return f"{10 ** round(exponent)}" if exponent <= 3 else f"1e{round(exponent)}"
