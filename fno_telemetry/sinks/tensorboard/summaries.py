"""The curves and histograms of a record in TensorBoard, and the charts of its Custom Scalars tab."""

import re
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from fno_telemetry import findings, keys
from fno_telemetry.records import CaptureRecord, TensorRecord
from fno_telemetry.sinks.overview import FIRST, LOSS, Detail, at_detail, loss_by_key, sort_quantities, spread

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

BAND = ("p50", "p05", "p95")
"""A margin chart takes exactly value, lower and upper."""

LAYERS_TITLE = "all layers over the steps"
BANDS_TITLE = "signed values: p50 between p05 and p95"

MOST_CHARTS = 30
"""The page draws every chart of the tab at once. There are as many at most for each of the two titles."""

MOST_LINES = 300
"""The page asks for all lines of a chart in one address, which the server takes up to 64 kB."""

_SEVERE: tuple[findings.Severity, ...] = ("error", "warning")

Layout = dict[str, dict[str, list[Any]]]
"""Category -> chart -> [kind, tags], as `SummaryWriter.add_custom_scalars` takes it."""


def scalars(record: CaptureRecord) -> Iterator[tuple[str, float]]:
    """Yield the tag and value of every defined statistic, then the loss and the counts of the findings."""
    yield from ((tag, float(value)) for tag, value in keys.numbers(record))
    yield from loss_by_key(record).items()
    yield from ((tag, float(count)) for tag, count in findings.count_causes_by_key(record).items())


def write_histograms(writer: "SummaryWriter", record: CaptureRecord, step: int) -> None:
    """Write both histograms of every tensor; the one over log10 |x| in a tag group of its own."""
    for place, entry in keys.tensors_by_place(record):
        tags = [keys.of_stage(keys.at(name, place), record) for name in ("histogram", "log_histogram")]
        _write_both(writer, tags, entry, step)


def _write_both(writer: "SummaryWriter", tags: Sequence[str], entry: TensorRecord, step: int) -> None:
    found, stats = entry.histogram, entry.stats
    if found is not None:
        finite = (stats.get("count") or 0) - (stats.get("nan_count") or 0) - (stats.get("inf_count") or 0)
        rms = stats.get("rms") or 0.0
        sums = ((stats.get("mean") or 0.0) * finite, rms * rms * finite)
        _write_bins(writer, tags[0], found.edges, found.counts, sums, step)
    decades = entry.log_histogram
    if decades is not None:
        pairs = pairwise(decades.edges)
        weighed = [((low + high) / 2, n) for (low, high), n in zip(pairs, decades.counts, strict=True)]
        sums = (sum(middle * n for middle, n in weighed), sum(middle * middle * n for middle, n in weighed))
        _write_bins(writer, tags[1], decades.edges, decades.counts, sums, step)


def _write_bins(
    writer: "SummaryWriter",
    tag: str,
    edges: Sequence[float],
    counts: Sequence[int],
    sums: tuple[float, float],
    step: int,
) -> None:
    """Write the bins from the first to the last that holds anything; nothing when none does.

    TensorBoard takes right edges. Its readers disagree about empty outer bins, and take the outermost edges
    from min and max.
    """
    filled = [index for index, count in enumerate(counts) if count]
    if not filled:
        return
    first, end = filled[0], filled[-1] + 1
    writer.add_histogram_raw(
        tag,
        min=edges[first],
        max=edges[end],
        num=sum(counts[first:end]),
        sum=sums[0],
        sum_squares=sums[1],
        bucket_limits=list(edges[first + 1 : end + 1]),
        bucket_counts=list(counts[first:end]),
        global_step=step,
    )


class Charts:
    """The charts of all records so far, because TensorBoard keeps only the last layout of a run.

    Each statistic has one chart with a line for each layer. TensorBoard itself colours a line by its run and
    lists the lines of a chart in an order of its own. With the detail "full", layers also have charts of
    their percentiles.
    """

    def __init__(self, detail: Detail) -> None:
        self._detail = detail
        # Dicts serve as sets that keep the order of depth: statistic -> tags of its lines, places of bands.
        self._lines: dict[str, dict[str, None]] = {}
        self._bands: dict[str, None] = {}
        self.layout: Layout = {}

    def add(self, record: CaptureRecord) -> bool:
        """Add the layers of this record; return whether that changed the layout."""
        self._lines = self._with_lines_of(record)
        if self._detail == "full":
            self._bands |= dict.fromkeys(_bands_of(record))
        before, self.layout = self.layout, self._lay_out(record)
        return self.layout != before

    def _with_lines_of(self, record: CaptureRecord) -> dict[str, dict[str, None]]:
        lines: dict[str, dict[str, None]] = {}
        for place, stats in keys.stats_by_place(at_detail(record, self._detail)):
            for statistic, value in stats.items():
                tag = keys.of_stage(keys.at(statistic, place), record)
                if keys.is_defined(value) or tag in self._lines.get(statistic, ()):
                    lines.setdefault(statistic, {})[tag] = None
        if record.findings is not None:
            lines[findings.STATISTIC] = dict.fromkeys(
                keys.of_stage(keys.at(findings.STATISTIC, name), record) for name in _SEVERE
            )
        if loss := loss_by_key(record):
            lines[LOSS] = dict.fromkeys(loss)
        for statistic, tags in self._lines.items():
            # What this record lacks comes last.
            lines.setdefault(statistic, {}).update(tags)
        return lines

    def _lay_out(self, record: CaptureRecord) -> Layout:
        own = (findings.STATISTIC, LOSS)
        names = [
            quantity.name for quantity in sort_quantities(self._lines.keys() - set(own), record, self._detail)
        ]
        first = [name for name in names if name in FIRST]
        ordered = [*first, *(name for name in own if name in self._lines), *names[len(first) :]]
        layout: Layout = {
            LAYERS_TITLE: {
                name: ["Multiline", _patterns(name, self._lines[name])] for name in ordered[:MOST_CHARTS]
            },
            # Plain tags. The page shows margin charts from the last to the first.
            BANDS_TITLE: {
                place: ["Margin", [keys.at(statistic, place) for statistic in BAND]]
                for place in reversed(self._bands)
            },
        }
        return {title: charts for title, charts in layout.items() if charts}


def _patterns(statistic: str, tags: Collection[str]) -> list[str]:
    """Return regular expressions for these tags; the page matches them at the start only."""
    if len(tags) > MOST_LINES:
        return [f"^{re.escape(keys.at(statistic, ''))}"]
    # Without the end, layer 1 would be layer 10 too.
    return [f"^{re.escape(tag)}$" for tag in tags]


def _bands_of(record: CaptureRecord) -> Iterator[str]:
    """Yield the places of layers whose percentiles get a chart: few, and evenly spread over the depth."""
    entries = dict(keys.tensors_by_place(record))
    layers = [place for place, _ in keys.tensors_by_place(at_detail(record, "overview"))]
    for place in spread(layers, MOST_CHARTS):
        if all(keys.is_defined(entries[place].stats.get(statistic)) for statistic in BAND):
            yield place
