"""A record for W&B: a row of curves and histograms, a profile over depth, and the configuration of the run.

Besides the keys that all sinks share, with the counts of findings, a row has these plain names, by which the
runs table can be sorted:

    input_sample_variation, output_sample_variation, output_rms, output_low_frequency_fraction
    lifting_low_frequency_fraction     of the first lifting layer
    smallest_update_ratio, largest_update_ratio, smallest_spectral_share     over all blocks
    largest_dead_channel_fraction, layers_with_nan_or_inf                    over all modules
    captured_loss                      where a loss was given

Those of a validation during training begin with `val/`, as all its keys do, the step included.

A row of the detail "full" holds at most MOST_KEYS keys. A model with too many layers loses whole statistics,
the least telling first and the same at every checkpoint. Measured with 200 layers of 32 statistics and two
histograms of 64 bins, 50 blocks, and as many digits as a float has: 7,215 keys, 1.1 MB as the JSON that is
sent. With 10,000 keys a row is below 4 MB, however many layers there are.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from fno_telemetry import findings, keys, report
from fno_telemetry.quantities import look_up
from fno_telemetry.records import CaptureRecord, FrozenMapping, Histogram, LogHistogram, TensorRecord, Value
from fno_telemetry.sinks.overview import Detail, at_detail, loss_by_key
from fno_telemetry.wording import to_printable

STEP = "checkpoint_step"
"""The x-axis of all curves but those of a validation; W&B's own step only counts rows."""

STEP_OF_VALIDATION = f"{keys.VALIDATION}/{STEP}"
"""The x-axis of the curves of a validation, which may share a row with a later step of the training."""

DEPTH = "depth"
"""The x-axis of a depth profile: the index of a layer in the order in which the layers finished."""

MOST_KEYS = 10_000
"""W&B advises against runs with more metrics than this."""

MOST_BINS = 512
"""`wandb.Histogram` refuses more."""

HISTOGRAMS = ("histogram", "log_histogram")

Bins = tuple[list[int], list[float]]
"""Counts and edges, as `wandb.Histogram(np_histogram=...)` takes them."""

_HISTOGRAM_RANK = 22
"""Histograms are kept as long as a quantity of this rank: longer than means and percentiles."""

# What differs between the checkpoints of one experiment, or between two captures of one checkpoint.
_NOT_OF_THE_EXPERIMENT = ("checkpoint", "time", "wall_seconds", "overhead", "command")


@dataclass(frozen=True)
class Row:
    """The row of one record; `left_out` names the statistics for which there was no room."""

    scalars: dict[str, int | float]
    histograms: dict[str, Bins]
    left_out: tuple[str, ...] = ()


def row(record: CaptureRecord, detail: Detail = "overview", most_keys: int = MOST_KEYS) -> Row:
    """Return the curves and histograms of the record; an undefined value has no key."""
    scalars: dict[str, int | float] = model_scalars(record)
    if record.step is not None:
        scalars[step_key(record)] = record.step
    scalars |= findings.count_causes_by_key(record)
    histograms: dict[str, Bins] = {}
    left_out = []
    room = most_keys - len(scalars)
    for statistic, values in _by_rank(at_detail(record, detail)):
        # Undefined values count as well, or the statistics of a run would change from row to row.
        if len(values) > room:
            left_out.append(statistic)
            continue
        room -= len(values)
        for place, value in values.items():
            if isinstance(value, Histogram | LogHistogram):
                bins = as_bins(value)
                if bins is not None:
                    histograms[keys.of_stage(keys.at(statistic, place), record)] = bins
            elif keys.is_defined(value):
                scalars[keys.of_stage(keys.at(statistic, place), record)] = value
    return Row(scalars, histograms, tuple(left_out))


def step_key(record: CaptureRecord) -> str:
    """Return the key of the step over which the curves of a record are drawn."""
    return keys.of_stage(STEP, record)


def depth_rows(record: CaptureRecord, detail: Detail = "overview") -> Iterator[dict[str, int | float | str]]:
    """Yield one row per layer in the order of completion: `depth`, `layer` and `depth/<statistic>`."""
    for depth, module in enumerate(keys.modules_in_order(at_detail(record, detail))):
        stats = {f"{DEPTH}/{name}": value for name, value in module.stats.items() if keys.is_defined(value)}
        yield {DEPTH: depth, "layer": keys.record_place(module), **stats}


def model_scalars(record: CaptureRecord) -> dict[str, int | float]:
    """Return the few numbers of the whole model, by the names at the top of this module."""
    lifting = next((module for module in keys.modules_in_order(record) if module.role == "lifting"), None)
    updates = _defined(block.stats.get("update_ratio") for block in record.blocks)
    shares = _defined(block.stats.get("spectral_share") for block in record.blocks)
    dead = _defined(module.stats.get("dead_channel_fraction") for module in record.modules)
    found: dict[str, Value] = {
        "input_sample_variation": _of(record.input, "sample_variation"),
        "output_sample_variation": _of(record.output, "sample_variation"),
        "output_rms": _of(record.output, "rms"),
        "output_low_frequency_fraction": _of(record.output, "low_frequency_fraction"),
        "lifting_low_frequency_fraction": _of(lifting, "low_frequency_fraction"),
        "smallest_update_ratio": min(updates, default=None),
        "largest_update_ratio": max(updates, default=None),
        "smallest_spectral_share": min(shares, default=None),
        "largest_dead_channel_fraction": max(dead, default=None),
        "layers_with_nan_or_inf": sum(
            bool(module.stats.get("nan_count") or module.stats.get("inf_count")) for module in record.modules
        ),
    }
    defined = {keys.of_stage(name, record): value for name, value in found.items() if keys.is_defined(value)}
    return defined | loss_by_key(record)


def config(record: CaptureRecord, of_experiment: bool) -> dict[str, Any]:
    """Return the record's summary, and its provenance under that name.

    With `of_experiment`, what differs between the checkpoints of one experiment is left out.
    """
    small = replace(
        record,
        modules=(),
        blocks=(),
        layers=FrozenMapping(),
        input=None,
        output=None,
        inputs=(),
        outputs=(),
        target=None,
        parameters=(),
    )
    document = report.as_document(small)
    summary, provenance = document["summary"], document["provenance"]
    if of_experiment:
        summary = {key: value for key, value in summary.items() if key != STEP}
        provenance = {key: value for key, value in provenance.items() if key not in _NOT_OF_THE_EXPERIMENT}
    shown: dict[str, Any] = _as_shown({**summary, "provenance": provenance})
    return shown


def _as_shown(value: Any) -> Any:
    """Return plain values with all texts printable: a record may come from a report of somebody else."""
    if isinstance(value, dict):
        return {to_printable(key): _as_shown(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_shown(item) for item in value]
    return to_printable(value) if isinstance(value, str) else value


def as_bins(found: Histogram | LogHistogram) -> Bins | None:
    """Return the bins from the first to the last that holds anything, merged where there are too many."""
    filled = [index for index, count in enumerate(found.counts) if count]
    if not filled:
        return None
    first, end = filled[0], filled[-1] + 1
    width = math.ceil((end - first) / MOST_BINS)
    starts = range(first, end, width)
    counts = [sum(found.counts[start : min(start + width, end)]) for start in starts]
    return counts, [*(found.edges[start] for start in starts), found.edges[end]]


def _by_statistic(record: CaptureRecord) -> dict[str, dict[str, Value | Histogram | LogHistogram]]:
    """Return statistic -> place -> value."""
    found: dict[str, dict[str, Value | Histogram | LogHistogram]] = {}
    for place, stats in keys.stats_by_place(record):
        for statistic, value in stats.items():
            found.setdefault(statistic, {})[place] = value
    for place, entry in keys.tensors_by_place(record):
        for kind in HISTOGRAMS:
            bins = getattr(entry, kind)
            if bins is not None:
                found.setdefault(kind, {})[place] = bins
    return found


def _by_rank(
    record: CaptureRecord,
) -> list[tuple[str, dict[str, Value | Histogram | LogHistogram]]]:
    """Return the values of each statistic, the most telling statistic first."""
    values = _by_statistic(record)
    ranks = {name: quantity.rank for name, quantity in look_up(values, record.quantities).items()}
    ranks |= dict.fromkeys(HISTOGRAMS, _HISTOGRAM_RANK)
    return sorted(values.items(), key=lambda item: ranks[item[0]])


def _of(entry: TensorRecord | None, statistic: str) -> Value:
    return None if entry is None else entry.stats.get(statistic)


def _defined(values: Iterable[Value]) -> list[int | float]:
    return [value for value in values if keys.is_defined(value)]
