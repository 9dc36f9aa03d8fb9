"""The picture of an output compared with its target, by frequency."""

from itertools import pairwise
from math import ceil, floor, log10
from typing import TYPE_CHECKING

from fno_telemetry.pictures.canvas import SMALL, Canvas, decade_text, set_ticks
from fno_telemetry.pictures.picture import Picture
from fno_telemetry.pictures.rows import drawable
from fno_telemetry.pictures.spectra import are_edges, name_frequencies
from fno_telemetry.pictures.themes import Theme
from fno_telemetry.records import BandAccuracy, CaptureRecord
from fno_telemetry.wording import format_percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEIGHT = 3.3  # inches
_DECADES = 6  # of each curve, from its highest point down


def target_and_output(record: CaptureRecord) -> Picture | None:
    """Return the energies of target, output and error by frequency, and the coherence; None without bands."""
    bands = None if record.accuracy is None else record.accuracy.bands
    if bands is None or len(bands.band_edges) < 3 or not any(bands.target[1:]):
        return None
    if not are_edges(bands.band_edges):
        return None
    if any(drawable(energy) is None for row in (bands.target, bands.output, bands.error) for energy in row):
        return None
    edges = bands.band_edges
    middles = [(above + below) / 2 for above, below in pairwise(edges)]

    def draw(theme: Theme) -> Canvas:
        canvas = Canvas(theme, _HEIGHT)
        left = canvas.panel(0.85, 0.52, 3.55, _HEIGHT - 0.86, "energy of a band")
        right = canvas.panel(5.1, 0.52, 2.2, _HEIGHT - 0.86, "coherence")
        curves = (
            ("target", bands.target, theme.ink, "-", "o"),
            ("output", bands.output, theme.first, "-", "s"),
            ("error", bands.error, theme.second, (0, (4, 2)), "^"),
        )
        known = [value for _, values, *_ in curves for value in values[1:] if value > 0]
        high = max(known)
        # However far apart the curves are, each is seen where it is highest.
        least = min(max(values[1:]) or high for _, values, *_ in curves)
        low = max(min(known), least * 10.0**-_DECADES)
        for name, values, colour, dashes, mark in curves:
            # A curve ends where it leaves the scale; on it, a zero would be infinitely far down.
            shown = [value if value >= low else None for value in values[1:]]
            left.plot(
                middles,
                shown,  # type: ignore[arg-type]
                label=name,
                color=colour,
                linestyle=dashes,
                marker=mark,
                markersize=3,
                linewidth=1.3,
            )
        left.set_yscale("log")
        left.set_ylim(low / 2, high * 2)
        _name_energies(left.get_ylim(), left)
        left.legend(fontsize=SMALL, frameon=False, labelcolor=theme.ink, loc="best", handlelength=2.4)
        for band in bands.missing:
            for axes in (left, right):
                axes.axvspan(edges[band], edges[band + 1], color=theme.marked, linewidth=0, zorder=0)
        right.plot(
            middles,
            bands.band_coherence[1:],  # type: ignore[arg-type]
            color=theme.first,
            marker="s",
            markersize=3,
            linewidth=1.3,
        )
        right.axhline(0, color=theme.grid, linewidth=0.8, zorder=0)
        right.set_ylim(-1.05, 1.05)
        set_ticks(right, [-1, -0.5, 0, 0.5, 1], ["−1", "−0.5", "0", "0.5", "1"], vertical=True)
        for axes in (left, right):
            axes.set_xlim(0, edges[-1])
            name_frequencies(axes, edges[-1])
            axes.xaxis.label.set(color=theme.muted, fontsize=SMALL)
        left.set_ylabel("x² summed", color=theme.muted, fontsize=SMALL)
        return canvas

    missing = " Shaded bands are missing in the output." if bands.missing else ""
    return Picture(
        name="accuracy",
        title="Target and output by frequency",
        caption="Where the output lies below the target, it lacks that frequency; where the error reaches "
        "the target, the output is no better there than zero. A coherence of 1 is right in phase, 0 is "
        "unrelated."
        f"{missing}",
        alt=_describe(bands, record),
        draw=draw,
    )


def _name_energies(limits: tuple[float, float], axes: "Axes") -> None:
    low, high = ceil(log10(limits[0])), floor(log10(limits[1]))
    ticks = [10.0**decade for decade in range(low, high + 1, max(1, (high - low + 4) // 5))]
    set_ticks(axes, ticks, [decade_text(tick) for tick in ticks], vertical=True)


def _describe(bands: BandAccuracy, record: CaptureRecord) -> str:
    error = record.accuracy.stats.get("relative_l2") if record.accuracy is not None else None
    parts = [] if error is None else [f"The relative L2 error is {format_percent(error)}."]
    if bands.missing:
        first = bands.band_edges[min(bands.missing)]
        parts.append(
            f"The output lacks {len(bands.missing)} of {len(bands.target) - 1} bands, from {first:.3g} up."
        )
    else:
        parts.append("The output has every band in which the target has 1 % of its energy.")
    return " ".join(parts)
