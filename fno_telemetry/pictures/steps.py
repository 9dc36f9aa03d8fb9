"""Pictures over the steps of a training, or of a series of checkpoints: a column for each record."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fno_telemetry.findings import Finding
from fno_telemetry.pictures.canvas import SMALL, Canvas, decade_text, row_panels, set_ticks
from fno_telemetry.pictures.columns import collect_numbers, name_block_numbers, name_steps, thin
from fno_telemetry.pictures.maps import ColourScale, Grid, draw_map, draw_scale, stack
from fno_telemetry.pictures.marks import draw_marks, find_marks
from fno_telemetry.pictures.picture import Picture
from fno_telemetry.pictures.rows import drawable, entries_by_place
from fno_telemetry.pictures.spectra import (
    common_edges,
    energy_scale,
    hatched,
    log_histogram_of,
    name_decades,
    name_frequencies,
    resample,
    shares_of,
    spectrum_of,
    used_columns,
)
from fno_telemetry.pictures.themes import Theme
from fno_telemetry.quantities import OF_THE_TENSOR, SHARE, look_up
from fno_telemetry.records import CaptureRecord
from fno_telemetry.wording import format_number, to_printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEIGHT = 2.9  # inches
_MOST_MARKS = 9


def statistic_by_step(
    records: Sequence[CaptureRecord], statistic: str, findings: Iterable[Finding] | None = None
) -> Picture | None:
    """Return a number of each layer, or of each block, over the steps.

    None for fewer than two records, and for a number that none of them has.
    """
    records = thin(records)
    rows, values = collect_numbers(records, statistic, findings)
    if len(records) < 2 or not rows:
        return None
    quantity = look_up([statistic], records[-1].quantities)[statistic]
    grid = stack(values)
    marks = [mark for mark in find_marks(records, findings) if mark.place in {row.place for row in rows}]
    unit = {OF_THE_TENSOR: "x", "1": "ratio"}.get(quantity.unit, quantity.unit)
    known = grid[np.isfinite(grid)]
    is_share = quantity.unit == SHARE and known.max() <= 1
    of = "block" if statistic in name_block_numbers(records) else "layer"

    def draw(theme: Theme) -> Canvas:
        canvas, [axes] = row_panels(theme, rows, [(quantity.title, 1.0)], bars=[0])
        scale = ColourScale.fit(grid, unit, share=is_share)
        draw_map(canvas, axes, grid, scale)
        for mark in marks:
            row = next(index for index, row in enumerate(rows) if row.place == mark.place)
            axes.plot(
                mark.column, row, "v", color="#ffffff", markeredgecolor="#000000", markersize=6, zorder=4
            )
        name_steps(axes, theme, records)
        draw_scale(canvas, axes, scale)
        return canvas

    triangles = " A triangle is the step at which a finding began." if marks else ""
    return Picture(
        name=f"steps-{_identifier(statistic)}",
        title=f"{quantity.title[:1].upper()}{quantity.title[1:]} by step and depth",
        caption=f"A row for each {of}, a column for each of {len(records)} records; "
        f"light is much, dark is little.{triangles}{_hatched_numbers(grid)}",
        alt=f"{quantity.title} from {format_number(float(known.min()))} to "
        f"{format_number(float(known.max()))} in {len(rows)} rows, {_range_of_steps(records)}.",
        draw=draw,
    )


def spectrum_by_step(records: Sequence[CaptureRecord], place: str) -> Picture | None:
    """Return the energy of a layer, or of input or output, by frequency and step; None without spectra."""
    records = thin(records)
    spectra = [spectrum_of(entries_by_place(record).get(place)) for record in records]
    known = [spectrum for spectrum in spectra if spectrum is not None]
    if len(records) < 2 or not known:
        return None
    edges = common_edges(known)
    nothing = np.full(len(edges) - 1, np.nan)
    grid = np.array([nothing if spectrum is None else resample(spectrum, edges) for spectrum in spectra]).T
    scale = energy_scale(grid, "share")
    return _picture_of_layer(
        records,
        place,
        f"spectrum-steps-{_identifier(place)}",
        "Energy by frequency and step",
        f"Each column has the shares of energy around the means at one step.{hatched(grid)}",
        grid,
        scale,
        (0.0, float(edges[-1])),
        lambda axes: name_frequencies(axes, float(edges[-1]), vertical=True),
    )


def values_by_step(records: Sequence[CaptureRecord], place: str) -> Picture | None:
    """Return the distribution of log10 |x| of one layer by step; None without histograms."""
    records = thin(records)
    found = [log_histogram_of(entries_by_place(record).get(place)) for record in records]
    known = [histogram for histogram in found if histogram is not None]
    if len(records) < 2 or not known:
        return None
    edges = known[0].edges
    nothing = np.full(len(edges) - 1, np.nan)
    shares = np.array([nothing if histogram is None else shares_of(histogram, edges) for histogram in found])
    first, last = used_columns(shares)
    grid = shares[:, first:last].T
    return _picture_of_layer(
        records,
        place,
        f"values-steps-{_identifier(place)}",
        "Distribution of the values by step",
        "Each column has the shares of values by |x| at one step: the whole training of a layer.",
        grid,
        ColourScale.by_decades(grid, "share of values", most=5),
        (edges[first], edges[last]),
        lambda axes: name_decades(axes, edges[first], edges[last], vertical=True),
    )


def losses(records: Sequence[CaptureRecord], findings: Iterable[Finding] | None = None) -> Picture | None:
    """Return the loss by step, and the relative error where a target is known, with the findings marked.

    None for fewer than two records with either.
    """
    records = thin(records)
    loss = [drawable(record.summary.get("loss")) for record in records]
    error = [
        None if record.accuracy is None else drawable(record.accuracy.stats.get("relative_l2"))
        for record in records
    ]
    curves = [
        (name, values)
        for name, values in (("loss", loss), ("relative L2 error", error))
        if sum(value is not None for value in values) > 1
    ]
    if not curves:
        return None
    marks = find_marks(records, findings)[:_MOST_MARKS]

    def draw(theme: Theme) -> Canvas:
        canvas = Canvas(theme, _HEIGHT)
        room = (canvas.width - 0.14 - 0.75 * len(curves)) / len(curves)
        for index, (name, values) in enumerate(curves):
            axes = canvas.panel(0.72 + index * (room + 0.75), 0.52, room, _HEIGHT - 1.0)
            axes.set_title(name, loc="left", fontsize=9, color=theme.ink, pad=16 if marks else 5)
            _draw_curve(axes, theme, values)
            draw_marks(axes, theme, marks, len(records) / room)
            axes.set_xlim(-0.5, len(records) - 0.5)
            name_steps(axes, theme, records, most=6)
        return canvas

    numbered = "; ".join(f"{number}: {mark.text}" for number, mark in enumerate(marks, 1))
    first, last = ([value for value in curves[0][1] if value is not None][end] for end in (0, -1))
    return Picture(
        name="losses",
        title="Loss by step",
        caption=f"Findings are marked where they began. {numbered}." if marks else "No finding marks a step.",
        alt=f"The {curves[0][0]} goes from {format_number(first)} to {format_number(last)}, "
        f"{_range_of_steps(records)}.",
        draw=draw,
    )


def _picture_of_layer(
    records: Sequence[CaptureRecord],
    place: str,
    name: str,
    title: str,
    caption: str,
    grid: Grid,
    scale: ColourScale,
    upwards: tuple[float, float],
    name_rows: Callable[["Axes"], None],
) -> Picture:
    """Return a map of one layer with its rows from below to above."""
    where = to_printable(place)

    def draw(theme: Theme) -> Canvas:
        canvas = Canvas(theme, _HEIGHT)
        axes = canvas.panel(0.8, 0.52, canvas.width - 1.75, _HEIGHT - 0.86, where)
        draw_map(canvas, axes, grid[::-1], scale, rows=upwards)
        name_rows(axes)
        axes.yaxis.label.set(color=theme.muted, fontsize=SMALL)
        name_steps(axes, theme, records)
        draw_scale(canvas, axes, scale)
        return canvas

    return Picture(
        name=name,
        title=f"{title}: {where}",
        caption=caption,
        alt=f"{title} of {where}, {_range_of_steps(records)}.",
        draw=draw,
    )


def _draw_curve(axes: "Axes", theme: Theme, values: Sequence[float | None]) -> None:
    mark = "o" if len(values) <= 40 else ""
    axes.plot(
        range(len(values)),
        values,  # type: ignore[arg-type]
        color=theme.first,
        linewidth=1.3,
        marker=mark,
        markersize=3,
        zorder=3,
    )
    known = [value for value in values if value is not None]
    if min(known) > 0:
        axes.set_yscale("log")
        low, high = (float(np.log10(end)) for end in (min(known), max(known)))
        if high - low < 1:
            low, high = np.floor(low), np.ceil(high)
            axes.set_ylim(10.0**low, 10.0 ** max(high, low + 1))
        inside = range(int(np.ceil(low - 0.05)), int(np.floor(high + 0.05)) + 1)
        ticks = [10.0**decade for decade in inside][:: max(1, (len(inside) + 4) // 5)]
        set_ticks(axes, ticks, [decade_text(tick) for tick in ticks], vertical=True)
    axes.grid(axis="y", color=theme.grid, linewidth=0.6)


def _hatched_numbers(grid: Grid) -> str:
    return "" if np.isfinite(grid).all() else " Hatched: undefined, or not finite."


def _range_of_steps(records: Sequence[CaptureRecord]) -> str:
    first, last = records[0].spelled_step, records[-1].spelled_step
    return f"from {first} to {last}" if first and last else f"over {len(records)} records"


def _identifier(text: str) -> str:
    """Return letters, digits and hyphens that name this text; those of different texts may be the same."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in text)
