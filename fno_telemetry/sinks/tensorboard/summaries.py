"""The curves and histograms of a record in TensorBoard, and the charts of its Custom Scalars tab."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from fno_telemetry import findings, keys
from fno_telemetry.records import CaptureRecord, TensorRecord

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

BAND = ("p50", "p05", "p95")
"""A margin chart takes exactly value, lower and upper."""

BANDS_TITLE = "signed values: p50 between p05 and p95"
BLOCKS_TITLE = "blocks"

Layout = dict[str, dict[str, list[Any]]]
"""Category -> chart -> [kind, tags], as `SummaryWriter.add_custom_scalars` takes it."""


def scalars(record: CaptureRecord) -> Iterator[tuple[str, float]]:
    """Yield the tag and value of every defined statistic, then the counts of the findings."""
    yield from ((tag, float(value)) for tag, value in keys.numbers(record))
    yield from ((tag, float(count)) for tag, count in findings.count_causes_by_key(record).items())


def write_histograms(writer: "SummaryWriter", place: str, entry: TensorRecord, step: int) -> None:
    """Write both histograms; the one over log10 |x| in a tag group of its own."""
    found, stats = entry.histogram, entry.stats
    if found is not None:
        finite = (stats.get("count") or 0) - (stats.get("nan_count") or 0) - (stats.get("inf_count") or 0)
        rms = stats.get("rms") or 0.0
        sums = ((stats.get("mean") or 0.0) * finite, rms * rms * finite)
        _write_bins(writer, keys.at("histogram", place), found.edges, found.counts, sums, step)
    decades = entry.log_histogram
    if decades is not None:
        pairs = pairwise(decades.edges)
        weighed = [((low + high) / 2, n) for (low, high), n in zip(pairs, decades.counts, strict=True)]
        sums = (sum(middle * n for middle, n in weighed), sum(middle * middle * n for middle, n in weighed))
        _write_bins(writer, keys.at("log_histogram", place), decades.edges, decades.counts, sums, step)


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
    """The charts of all records so far, because TensorBoard keeps only the last layout of a run."""

    def __init__(self) -> None:
        # Dicts serve as sets that keep the order in which the layers ran.
        self._bands: dict[str, None] = {}
        self._blocks: dict[str, dict[str, None]] = {}

    def add(self, record: CaptureRecord) -> bool:
        """Add the layers and blocks of this record; return whether that changed the layout."""
        before = (len(self._bands), sum(map(len, self._blocks.values())))
        for place, entry in keys.tensors_by_place(record):
            if all(keys.is_defined(entry.stats.get(statistic)) for statistic in BAND):
                self._bands[place] = None
        for block in record.blocks:
            for statistic, value in block.stats.items():
                if keys.is_defined(value):
                    self._blocks.setdefault(statistic, {})[keys.record_key(statistic, block)] = None
        return before != (len(self._bands), sum(map(len, self._blocks.values())))

    def layout(self) -> Layout:
        """Return one chart per block statistic, a line for each block, and a margin chart for each layer."""
        layout: Layout = {
            # Regular expressions, matched at the start only: without the end, layer 1 is layer 10 too.
            BLOCKS_TITLE: {
                statistic: ["Multiline", [f"^{re.escape(tag)}$" for tag in tags]]
                for statistic, tags in self._blocks.items()
            },
            # Plain tags. The page shows margin charts from the last to the first.
            BANDS_TITLE: {
                place: ["Margin", [keys.at(statistic, place) for statistic in BAND]]
                for place in reversed(self._bands)
            },
        }
        return {title: charts for title, charts in layout.items() if charts}
