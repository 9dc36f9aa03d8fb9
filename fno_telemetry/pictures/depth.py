"""Pictures of one record over the depth of the network: sizes, gains, branches, channels, samples."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fno_telemetry.pictures.canvas import TEXT, Canvas, mark_rows, row_panels, value_scale
from fno_telemetry.pictures.picture import Picture
from fno_telemetry.pictures.rows import Row, block_rows, layer_rows
from fno_telemetry.pictures.themes import Theme
from fno_telemetry.records import CaptureRecord
from fno_telemetry.wording import format_number, format_percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DOT = 4.5  # points across


def size_and_gain(record: CaptureRecord) -> Picture | None:
    """Return the rms of each layer with the band from the 1st to the 99th percentile, and the gain of blocks.

    None without an rms.
    """
    rows = layer_rows(record)
    if not any(row.number("rms") is not None for row in rows):
        return None
    gains = {row.place: row.number("gain") for row in block_rows(record)}
    has_gains = any(gain is not None for gain in gains.values())

    def draw(theme: Theme) -> Canvas:
        titles = [("values of each layer", 3.0), *([("gain of each block", 1.3)] if has_gains else [])]
        canvas, [sizes, *others] = row_panels(theme, rows, titles)
        mark_rows(canvas, sizes, rows)
        drawn = [0.0]
        for index, row in enumerate(rows):
            low, high, rms = (row.number(name) for name in ("p01", "p99", "rms"))
            if low is not None and high is not None:
                sizes.barh(index, high - low, left=low, height=0.62, color=theme.band, linewidth=0, zorder=2)
                drawn += [low, high]
            if rms is not None:
                drawn.append(rms)
            if _is_broken(row):
                text = "not finite" if rms is None else "some not finite"
                sizes.annotate(
                    text,
                    (1, index),
                    xycoords=("axes fraction", "data"),
                    xytext=(-4, 0),
                    textcoords="offset points",
                    color=theme.alert,
                    fontsize=7.5,
                    horizontalalignment="right",
                    verticalalignment="center",
                    bbox={"facecolor": theme.page, "edgecolor": "none", "pad": 0.6, "alpha": 0.85},
                    zorder=4,
                )
        _draw_dots(sizes, theme, [row.number("rms") for row in rows])
        value_scale(sizes, drawn, theme.muted)
        by_decades = ", by decades" if sizes.get_xscale() == "symlog" else ""
        sizes.set_xlabel(f"x{by_decades}: dot = rms, bar = 1st to 99th percentile")
        if others:
            _draw_gains(canvas, others[0], rows, gains)
        return canvas

    return Picture(
        name="sizes",
        title="Size of the values by depth",
        caption="From the input at the top to the output at the bottom. The dot is the rms, the bar holds 98 "
        "% of the values. A healthy network keeps its values within a few decades; a dot at 0 is a dead "
        "layer. A gain of 1 leaves the size as it is." + _note_on_marks(rows),
        alt=_describe_extremes(rows, "rms", "rms"),
        draw=draw,
    )


def branch_balance(record: CaptureRecord) -> Picture | None:
    """Return the energy shares of the spectral and the local branch of each block, and its update ratio.

    None without the share of a block.
    """
    rows = [row for row in block_rows(record) if row.number("spectral_share") is not None]
    if not rows:
        return None
    updates = [row.number("update_ratio") for row in rows]
    has_updates = any(update is not None for update in updates)

    def draw(theme: Theme) -> Canvas:
        titles = [("spectral branch and local branch", 3.0)]
        titles += [("relative change of the input", 1.6)] if has_updates else []
        canvas, [shares, *others] = row_panels(theme, rows, titles)
        for index, row in enumerate(rows):
            share = row.number("spectral_share") or 0.0
            shares.barh(index, share, height=0.66, color=theme.first, linewidth=0)
            shares.barh(
                index,
                1 - share,
                left=share,
                height=0.66,
                facecolor=theme.band,
                edgecolor=theme.page,
                hatch="////",
                linewidth=0,
            )
        shares.axvline(0.5, color=theme.ink, linewidth=0.8, linestyle=(0, (4, 3)))
        shares.set_xlim(0, 1)
        shares.set_xlabel("share of energy: plain = spectral, hatched = local")
        if others:
            mark_rows(canvas, others[0], rows)
            _draw_stems(others[0], theme, updates)
            value_scale(others[0], [value for value in updates if value is not None], theme.muted)
            others[0].set_xlabel("update ratio")
        return canvas

    return Picture(
        name="branches",
        title="Balance of the branches",
        caption="The plain part of a bar is the spectral branch, the hatched part the local one. Where one "
        "part is next to nothing, that branch does no work. An update ratio near 0 means that the block "
        "passes its input on." + _note_on_marks(rows),
        alt=_describe_extremes(rows, "spectral_share", "energy share of the spectral branch", is_share=True),
        draw=draw,
    )


def channels_and_samples(record: CaptureRecord) -> Picture | None:
    """Return dead channels and the variation between samples of each layer; None without both."""
    rows = layer_rows(record)
    dead = [row.number("dead_channel_fraction") for row in rows]
    variation = [row.number("sample_variation") for row in rows]
    if all(value is None for value in (*dead, *variation)):
        return None

    def draw(theme: Theme) -> Canvas:
        canvas, [left, right] = row_panels(
            theme, rows, [("dead channels", 1.0), ("variation between samples", 1.6)]
        )
        for axes in (left, right):
            mark_rows(canvas, axes, rows)
        for index, value in enumerate(dead):
            if value is not None:
                left.barh(index, value, height=0.66, color=theme.second, linewidth=0)
        left.set_xlim(0, 1)
        left.set_xlabel("share of channels")
        if not any(dead):
            none = "none" if any(value is not None for value in dead) else "unknown"
            left.text(
                0.5,
                0.5,
                none,
                transform=left.transAxes,
                color=theme.muted,
                fontsize=TEXT,
                ha="center",
                va="center",
            )
        _draw_stems(right, theme, variation)
        value_scale(right, [value for value in variation if value is not None], theme.muted)
        right.set_xlabel("ratio of variation to size (0: alike for all samples)")
        return canvas

    return Picture(
        name="channels",
        title="Dead channels and variation between samples",
        caption="A layer without dead channels has no bar. Where the variation falls to 0, what follows no "
        "longer depends on the input." + _note_on_marks(rows),
        alt=f"{_describe_extremes(rows, 'dead_channel_fraction', 'share of dead channels', is_share=True)} "
        f"{_describe_extremes(rows, 'sample_variation', 'variation between samples')}",
        draw=draw,
    )


def _draw_gains(canvas: Canvas, axes: "Axes", rows: Sequence[Row], gains: dict[str, float | None]) -> None:
    mark_rows(canvas, axes, rows)
    found = [gains.get(row.place) for row in rows]
    _draw_stems(axes, canvas.theme, found)
    value_scale(axes, [*(gain for gain in found if gain is not None), 1.0], canvas.theme.muted)
    axes.axvline(1, color=canvas.theme.ink, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    axes.set_xlabel("rms of output / rms of input")


def _draw_stems(axes: "Axes", theme: Theme, values: Sequence[float | None]) -> None:
    """Draw dots on lines from 0, which are found in their rows where there are many."""
    known = [(row, value) for row, value in enumerate(values) if value is not None]
    for row, value in known:
        axes.plot([0, value], [row, row], color=theme.grid, linewidth=1.2, zorder=1)
    _draw_dots(axes, theme, values)


def _draw_dots(axes: "Axes", theme: Theme, values: Sequence[float | None]) -> None:
    known = [(value, row) for row, value in enumerate(values) if value is not None]
    axes.plot(
        [value for value, _ in known],
        [row for _, row in known],
        "o",
        color=theme.first,
        markersize=_DOT,
        zorder=3,
    )


def _is_broken(row: Row) -> bool:
    return any(row.stats.get(name) for name in ("nan_count", "inf_count"))


def _note_on_marks(rows: Sequence[Row]) -> str:
    return " Rows with “!” have a finding." if any(row.is_marked for row in rows) else ""


def _describe_extremes(rows: Sequence[Row], statistic: str, words: str, is_share: bool = False) -> str:
    """Return a sentence with the lowest and the highest value, and where they are."""
    known = [(value, row.name) for row in rows if (value := row.number(statistic)) is not None]
    if not known:
        return f"The {words} is undefined in every row."
    show = format_percent if is_share else format_number
    low, high = min(known, key=lambda one: one[0]), max(known, key=lambda one: one[0])
    if low[0] == high[0]:
        return f"The {words} is {show(low[0])} in all {len(known)} rows."
    ends = f"{show(low[0])} ({low[1]}) to {show(high[0])} ({high[1]})"
    return f"The {words} goes from {ends}, in {len(known)} rows."
