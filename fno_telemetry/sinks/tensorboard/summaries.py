"""What of a record TensorBoard shows: curves, histograms, the charts of its Custom Scalars tab, tables."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeGuard

from fno_telemetry import findings, keys
from fno_telemetry.records import BlockRecord, CaptureRecord, ModuleRecord, TensorRecord, Value

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

BAND = ("p50", "p05", "p95")
"""A margin chart takes exactly value, lower and upper."""

MOST_CAUSES = 50
"""The list of findings holds no more; what is first in the record explains most."""

BANDS_TITLE = "signed values: p50 between p05 and p95"
BLOCKS_TITLE = "blocks"

Layout = dict[str, dict[str, list[Any]]]
"""Category -> chart -> [kind, tags], as `SummaryWriter.add_custom_scalars` takes it."""


def scalars(record: CaptureRecord) -> Iterator[tuple[str, float]]:
    """Yield the tag and value of every statistic that is defined, and how much was found."""
    named: list[tuple[str, Mapping[str, Value]]] = [(place, entry.stats) for place, entry in tensors(record)]
    named += [(keys.record_place(block), block.stats) for block in record.blocks]
    for place, stats in named:
        for statistic, value in stats.items():
            if _is_defined(value):
                yield keys.at(statistic, place), float(value)
    yield from ((tag, float(count)) for tag, count in findings.count_causes_by_key(record).items())


def tensors(record: CaptureRecord) -> Iterator[tuple[str, TensorRecord]]:
    """Yield every tensor with its place: the input, the modules as they finished, what came out."""
    if record.input is not None:
        yield keys.model_place("input"), record.input
    for module in in_order(record):
        yield keys.record_place(module), module
    if record.output is not None:
        yield keys.model_place("output"), record.output
    for output in record.outputs:
        # A single output without a name of its own is the output.
        if output.item is not None:
            yield keys.model_place("output", output.item), output


def in_order(record: CaptureRecord) -> list[ModuleRecord]:
    """Return the module records in the order in which the modules finished."""
    return sorted(record.modules, key=lambda module: module.order)


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
    """The charts of all records so far: of the layouts of a run, TensorBoard keeps only the last."""

    def __init__(self) -> None:
        # Dicts serve as sets that keep the order in which the layers ran.
        self._bands: dict[str, None] = {}
        self._blocks: dict[str, dict[str, None]] = {}

    def add(self, record: CaptureRecord) -> bool:
        """Take up what this record brings; True when that changed the layout."""
        before = (len(self._bands), sum(map(len, self._blocks.values())))
        for place, entry in tensors(record):
            if all(_is_defined(entry.stats.get(statistic)) for statistic in BAND):
                self._bands[place] = None
        for block in record.blocks:
            for statistic, value in block.stats.items():
                if _is_defined(value):
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


# Short titles: where the page is narrow it breaks words anywhere.
_MODULE_COLUMNS = {
    "rms": "rms",
    "abs p50": "abs_p50",
    "abs p99": "abs_p99",
    "low freq.": "low_frequency_fraction",
    "sample var.": "sample_variation",
    "dead ch.": "dead_channel_fraction",
}
_BLOCK_COLUMNS = {
    "spectral/local": "spectral_local_ratio",
    "spectral share": "spectral_share",
    "cosine": "branch_cosine",
    "update": "update_ratio",
    "gain": "gain",
}
_SUMMARY = ("architecture", "weights", "n_samples", "n_modules", "n_parameters", "device", "dtype")
# Whatever Markdown or HTML could read as a sign of theirs.
_MARKS = re.compile(r"[^\w\s.,:=+/-]|_")


def table(record: CaptureRecord) -> str:
    """Return the record as Markdown: a line of summary, layers in execution order, blocks, warnings."""
    parts = [_summary_line(record)]
    modules = [
        [
            _name(module),
            module.role,
            "x".join(map(str, module.shape)),
            *_numbers(module.stats, _MODULE_COLUMNS),
        ]
        for module in in_order(record)
    ]
    parts.append(_rows(["layer", "role", "shape", *_MODULE_COLUMNS], modules))
    if record.blocks:
        blocks = [[_name(block), *_numbers(block.stats, _BLOCK_COLUMNS)] for block in record.blocks]
        parts.append(_rows(["block", *_BLOCK_COLUMNS], blocks))
    if record.warnings:
        parts.append("\n".join(f"- warning: {escape(warning)}" for warning in record.warnings))
    return "\n\n".join(parts)


def findings_list(record: CaptureRecord, most: int = MOST_CAUSES) -> str | None:
    """Return the findings as Markdown, each cause with what follows from it below; None: nobody looked.

    A list, because TensorBoard breaks the words of narrow columns.
    """
    if record.findings is None:
        return None
    causes = findings.group_by_cause(record.findings)
    if not causes:
        return findings.NOTHING_FOUND
    lines = []
    for cause in causes[:most]:
        found = cause.finding
        message = findings.to_one_line(found.message, findings.LONGEST_TEXT)
        name = f"{escape(found.severity)}: {escape(found.where)}"
        lines.append(f"- **{name}** {escape(f'{message} ({found.rule})')}")
        advice = findings.to_one_line(found.advice, findings.LONGEST_TEXT)
        below = (findings.describe_evidence(found), advice, cause.what_follows)
        lines += [f"    - {escape(line)}" for line in below if line]
    if len(causes) > most:
        lines += ["", f"{len(causes) - most} more are in the report."]
    return "\n".join(lines)


def escape(text: object) -> str:
    """Return one line of Markdown that shows just this text: nothing in it starts a cell, mark or tag."""
    return _MARKS.sub(lambda found: f"&#{ord(found[0])};", " ".join(str(text).split()))


def _summary_line(record: CaptureRecord) -> str:
    step = "unknown" if record.step is None else record.step
    known = [f"{name}: {escape(record.summary[name])}" for name in _SUMMARY if record.summary.get(name)]
    return ", ".join([f"step: {step}", *known])


def _name(record: ModuleRecord | BlockRecord) -> str:
    """Return the dotted path, with the call and the output where there are several."""
    item = record.item if isinstance(record, ModuleRecord) else None
    call = f"@{record.call}" if record.call else ""
    return (record.name or keys.ROOT) + call + (f"[{item}]" if item is not None else "")


def _numbers(stats: Mapping[str, Value], columns: Mapping[str, str]) -> list[str]:
    values = [stats.get(statistic) for statistic in columns.values()]
    return [f"{value:.3g}" if _is_defined(value) else "-" for value in values]


def _is_defined(value: Value) -> TypeGuard[int | float]:
    return value is not None and math.isfinite(value)


def _rows(header: list[str], rows: Iterable[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *([escape(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
