"""Pictures of distributions by depth: energy over frequency, numbers over their size, weights over modes."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fno_telemetry.pictures.canvas import Canvas, decade_text, row_panels, set_ticks
from fno_telemetry.pictures.maps import ColourScale, Grid, draw_map, draw_scale
from fno_telemetry.pictures.picture import Picture
from fno_telemetry.pictures.rows import Row, is_module, layer_rows
from fno_telemetry.pictures.themes import Theme
from fno_telemetry.records import CaptureRecord, LogHistogram, ModuleRecord, Spectrum, TensorRecord
from fno_telemetry.wording import format_number, join_names, to_printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DECADES = 6  # of energy: what has less than a millionth is as good as nothing
_ROUNDING = 1e-9  # shares of energy that float32 leaves where a layer keeps nothing
_EXACT = ("float32", "float64", "complex64", "complex128")
_MOST_BANDS = 256
_HIGHEST = 16.0  # cycles per grid point; a grid of 1,000 axes has less
_MOST_UNDEFINED = 4  # names in a caption
_SHARE = "low_frequency_fraction"
_MOST_DIGITS = 300.0  # decades that float64 has


def spectrum_by_layer(record: CaptureRecord) -> Picture | None:
    """Return the energy of each layer by frequency, with the modes that spectral layers keep.

    None without a spectrum.
    """
    every = layer_rows(record)
    rows = [row for row in every if spectrum_of(row.entry) is not None]
    if not rows:
        return None
    spectra = [spectrum for row in rows if (spectrum := spectrum_of(row.entry)) is not None]
    edges = common_edges(spectra)
    grid = np.array([resample(spectrum, edges) for spectrum in spectra])
    kept = [kept_frequency(row.entry) for row in rows]

    def draw(theme: Theme) -> Canvas:
        canvas, [axes] = row_panels(theme, rows, [("energy by frequency", 1.0)], bars=[0])
        scale = energy_scale(grid, "share")
        draw_map(canvas, axes, grid, scale, across=(0.0, float(edges[-1])))
        for index, frequency in enumerate(kept):
            if frequency is not None:
                mark_frequency(axes, frequency, index)
        name_frequencies(axes, float(edges[-1]))
        draw_scale(canvas, axes, scale)
        return canvas

    marks = " White lines are the highest frequency that a spectral layer keeps along an axis."
    return Picture(
        name="spectrum",
        title="Energy by frequency and depth",
        caption="Each row has the shares of a layer's energy around its means; light is much, dark is "
        "little. Frequencies are in cycles per grid point of that layer; the finest along an axis is 1/2."
        f"{marks if any(each is not None for each in kept) else ''}{hatched(grid)}{_undefined(every)}",
        alt=_describe_low(rows),
        draw=draw,
    )


def values_by_layer(record: CaptureRecord) -> Picture | None:
    """Return the distribution of log10 |x| in each layer; None without a histogram of it."""
    rows = [row for row in layer_rows(record) if log_histogram_of(row.entry) is not None]
    if not rows:
        return None
    found = [histogram for row in rows if (histogram := log_histogram_of(row.entry)) is not None]
    edges = found[0].edges
    grid = np.array([shares_of(histogram, edges) for histogram in found])
    first, last = used_columns(grid)
    zeros = [histogram.zeros / max(_total(histogram), 1) for histogram in found]

    def draw(theme: Theme) -> Canvas:
        titles = [("values by their size", 3.4), ("exact zeros", 1.0)]
        canvas, [axes, right] = row_panels(theme, rows, titles, bars=[1])
        scale = ColourScale.fit(grid, "share of values")
        scale = ColourScale(0.0, max(scale.high, 1e-3), scale.unit) if not scale.decades else scale
        draw_map(canvas, axes, grid[:, first:last], scale, across=(edges[first], edges[last]))
        name_decades(axes, edges[first], edges[last])
        for index, share in enumerate(zeros):
            right.barh(index, share, height=0.66, color=theme.second, linewidth=0)
        right.set_xlim(0, 1)
        right.set_xlabel("share of values")
        draw_scale(canvas, right, scale)
        return canvas

    return Picture(
        name="values",
        title="Distribution of the values by depth",
        caption="Each row has the shares of a layer's values by |x|, zeros apart. A layer that vanishes or "
        "explodes lies far to the left or right of its neighbours.",
        alt=f"Sizes of values from {decade_text(10.0 ** np.floor(edges[first]))} to "
        f"{decade_text(10.0 ** np.ceil(edges[last]))} in {len(rows)} rows; the largest share of exact zeros "
        f"is {format_number(max(zeros))}.",
        draw=draw,
    )


def mode_energy(record: CaptureRecord) -> Picture | None:
    """Return how the energy of each spectral layer's weights is spread over its modes; None without any."""
    rows = [row for row in layer_rows(record) if _shares_of_modes(row)]
    if not rows:
        return None
    axes_count = max(len(_shares_of_modes(row)) for row in rows)

    def draw(theme: Theme) -> Canvas:
        titles = [(f"modes along axis {axis + 1}", 1.0) for axis in range(axes_count)]
        canvas, panels = row_panels(theme, rows, titles, bars=[axes_count - 1])
        grids = [_modes_along(rows, axis) for axis in range(axes_count)]
        known = np.concatenate([grid[np.isfinite(grid)] for grid in grids])
        scale = ColourScale.fit(np.append(known, 0.0), "× even")
        for panel, grid in zip(panels, grids, strict=True):
            draw_map(canvas, panel, grid, scale)
            panel.locator_params(axis="x", integer=True, nbins=6)
            panel.set_xlabel("number of the mode")
        draw_scale(canvas, panels[-1], scale)
        return canvas

    return Picture(
        name="modes",
        title="Energy of the spectral weights by mode",
        caption="1 is the energy that a mode would have if all had the same. Dark modes are not used. Modes "
        "are in the order in which the weights have them.",
        alt=f"Energy of the weights by mode in {len(rows)} spectral layers.",
        draw=draw,
    )


def spectrum_of(entry: object) -> Spectrum | None:
    """Return the spectrum of an entry that has one with energy."""
    found = entry.spectrum if isinstance(entry, TensorRecord) else None
    if found is None or not are_edges(found.band_edges) or not _are_shares(found.bands):
        return None
    return found


def _undefined(rows: Sequence[Row]) -> str:
    """Return which layers have no spectrum, and why; "" where only those have none that have no fields."""
    found = [
        f"{to_printable(row.place)} ({row.entry.reasons[_SHARE]})"
        for row in rows
        if isinstance(row.entry, TensorRecord) and row.entry.spatial_axes and _SHARE in row.entry.reasons
    ]
    if not found:
        return ""
    return f" Without a row, as they have no spectrum: {join_names(found, _MOST_UNDEFINED)}."


def log_histogram_of(entry: object) -> LogHistogram | None:
    """Return the histogram of log10 |x| of an entry with values."""
    found = entry.log_histogram if isinstance(entry, TensorRecord) else None
    if found is None or not are_edges(found.edges, -_MOST_DIGITS, _MOST_DIGITS) or not _total(found):
        return None
    return found


def are_edges(edges: Sequence[float], least: float = 0.0, most: float = _HIGHEST) -> bool:
    """Whether these are edges of bins that can be drawn; a report from anywhere may hold others."""
    inside = all(least <= edge <= most for edge in edges)
    return inside and len(edges) > 1 and all(below < above for below, above in pairwise(edges))


def _are_shares(bands: Sequence[float]) -> bool:
    return all(0 <= share <= 2 for share in bands) and sum(bands) > 0


def common_edges(spectra: Sequence[Spectrum]) -> npt.NDArray[np.float64]:
    """Return edges of bands as narrow as the narrowest of these, up to the highest frequency."""
    widths = [spectrum.band_edges[1] - spectrum.band_edges[0] for spectrum in spectra]
    last = max(spectrum.band_edges[-1] for spectrum in spectra)
    count = min(max(round(last / min(widths)), 1), _MOST_BANDS)
    return np.linspace(0.0, last, count + 1)


def resample(spectrum: Spectrum, edges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the shares of energy in other bands; NaN beyond the highest frequency of the fields."""
    own = np.asarray(spectrum.band_edges)
    summed = np.concatenate(([0.0], np.cumsum(spectrum.bands)))
    shares = np.diff(np.interp(edges, own, summed))
    shares[edges[:-1] >= own[-1] * (1 - 1e-9)] = np.nan
    return np.asarray(shares)


def kept_frequency(entry: object) -> float | None:
    """Return the highest frequency that a spectral layer keeps along each of its axes.

    It is read from the layer's output, which has next to no energy beyond. None for a layer of another role,
    of another precision than float32 and float64, and for one that keeps all frequencies.
    """
    spectrum = spectrum_of(entry)
    if spectrum is None or not isinstance(entry, ModuleRecord) or not is_module(entry, "spectral"):
        return None
    if entry.dtype not in _EXACT:
        return None
    edges = spectrum.axis_band_edges
    ends = []
    for shares in spectrum.axis_bands:
        last = max((index for index, share in enumerate(shares) if share > _ROUNDING), default=None)
        if last is not None:
            ends.append(edges[last + 1])
    if not ends or min(ends) >= edges[-1] * (1 - 1e-9):
        return None
    return min(ends)


def energy_scale(grid: Grid, unit: str) -> ColourScale:
    """Return the scale of shares of energy, down to a millionth."""
    return ColourScale(-float(_DECADES), 0.0, unit, decades=True)


def mark_frequency(axes: "Axes", frequency: float, row: float, height: float = 1.0) -> None:
    """Draw a white line with a dark rim, which is seen on any colour of a map."""
    for width, colour in ((2.6, "#000000"), (1.2, "#ffffff")):
        axes.plot(
            [frequency, frequency],
            [row - height / 2 + 0.08, row + height / 2 - 0.08],
            color=colour,
            linewidth=width,
            solid_capstyle="butt",
            zorder=3,
        )


def name_frequencies(axes: "Axes", highest: float, vertical: bool = False) -> None:
    """Write frequencies next to an axis."""
    ticks = [(0.0, "0"), (1 / 8, "1/8"), (1 / 4, "1/4"), (1 / 2, "1/2")]
    dots = axes.bbox.height if vertical else axes.bbox.width
    inches = dots / axes.figure.dpi
    # In a narrow panel, 1/8 would touch 1/4.
    shown = [
        (at, text) for at, text in ticks if at <= highest and (at != 1 / 8 or inches * at / highest > 0.3)
    ]
    set_ticks(axes, [at for at, _ in shown], [text for _, text in shown], vertical)
    (axes.set_ylabel if vertical else axes.set_xlabel)("cycles per grid point")


def name_decades(axes: "Axes", first: float, last: float, vertical: bool = False) -> None:
    """Write powers of ten next to a map of log10 |x|."""
    stride = max(1, round((last - first) / 6))
    ticks = list(range(int(np.ceil(first)), int(np.floor(last)) + 1, stride))
    set_ticks(axes, [float(tick) for tick in ticks], [decade_text(10.0**tick) for tick in ticks], vertical)
    (axes.set_ylabel if vertical else axes.set_xlabel)("|x|")


def shares_of(histogram: LogHistogram, edges: Sequence[float]) -> npt.NDArray[np.float64]:
    """Return the share of all values in each bin; NaN where the bins are not these."""
    if tuple(histogram.edges) != tuple(edges):
        return np.full(len(edges) - 1, np.nan)
    counts = np.asarray(histogram.counts, dtype=np.float64)
    counts[0] += histogram.below
    counts[-1] += histogram.above
    return np.asarray(counts / max(_total(histogram), 1))


def used_columns(grid: Grid) -> tuple[int, int]:
    """Return the first column with a number that is seen, and the one after the last; at least four."""
    used = np.flatnonzero(np.nan_to_num(grid).max(axis=0) > 1e-4)
    first, last = (int(used[0]), int(used[-1]) + 1) if used.size else (0, grid.shape[1])
    # A whole decade on both sides, so that what lies at the edge is not taken for what is cut off.
    return max(first - 2, 0), min(max(last + 2, first + 4), grid.shape[1])


def hatched(grid: Grid) -> str:
    """Return what the hatched parts of a map are, if it has any."""
    return "" if np.isfinite(grid).all() else " Hatched: no such frequency, or undefined."


def _total(histogram: LogHistogram) -> int:
    return sum(histogram.counts) + histogram.below + histogram.above + histogram.zeros


def _shares_of_modes(row: Row) -> tuple[tuple[float, ...], ...]:
    entry = row.entry
    if not isinstance(entry, ModuleRecord) or entry.mode_energy is None:
        return ()
    every = entry.mode_energy.axis_shares
    return tuple(shares for shares in every if len(shares) > 1 and _are_shares(shares))


def _modes_along(rows: Sequence[Row], axis: int) -> Grid:
    """Return the energy of each mode along an axis, 1 where all have the same."""
    every = [_shares_of_modes(row) for row in rows]
    found = [shares[axis] if axis < len(shares) else () for shares in every]
    grid = np.full((len(rows), max(map(len, found))), np.nan)
    for index, energies in enumerate(found):
        grid[index, : len(energies)] = np.asarray(energies) * len(energies)
    return grid


def _describe_low(rows: Sequence[Row]) -> str:
    known = [(value, row.name) for row in rows if (value := row.number("low_frequency_fraction")) is not None]
    if not known:
        return f"Shares of energy by frequency in {len(rows)} rows."
    (low, where), (high, other) = min(known), max(known)
    return (
        f"The energy share at or below 1/8 cycle per grid point goes from {format_number(low)} ({where}) to "
        f"{format_number(high)} ({other}), in {len(rows)} rows."
    )
