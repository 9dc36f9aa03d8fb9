"""Finds values that grow or shrink too much: in one block, over all blocks, or in one layer."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fno_telemetry.comparison.changes import Scales
from fno_telemetry.diagnosis.contract import Evidence
from fno_telemetry.diagnosis.places import (
    Place,
    block_places,
    find_counterpart,
    median_of_others,
    medians_before,
    module_places,
    select_defined,
)
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord, ModuleRecord


@dataclass(frozen=True)
class Growth:
    """A place where values grow or shrink, what was seen there and what was expected."""

    place: Place[Any]
    message: str
    evidence: Evidence


@dataclass(frozen=True, kw_only=True)
class GrowthLimits:
    """The factors at or above which values grow too much; with `shrinking`, at or below which they shrink.

    Without a baseline, a layer whose rms is below (with `shrinking`, above) `ordinary` is never reported:
    after a normalisation layer, values are near 1, whatever the scale of its input. With a baseline, growth
    counts beyond `of_scales` times the largest rms of its layers and of its input. `each` is the limit of the
    gains of all blocks on (geometric) average.
    """

    of_siblings: float
    gain: float
    of_network: float
    over_depth: float
    of_baseline: float
    gain_of_baseline: float
    ordinary: float
    of_scales: float = 1.0
    each: float = math.inf
    shrinking: bool = False

    def reached(self, factor: float, limit: float) -> bool:
        """Whether the factor is at the limit or beyond it."""
        return factor <= limit if self.shrinking else factor >= limit

    def is_extreme(self, rms: float | None) -> bool:
        """Whether this rms is at `ordinary` or beyond it; True where it is unknown."""
        return rms is None or self.reached(rms, self.ordinary)


def find_growth(
    record: CaptureRecord, baseline: CaptureRecord | None, limits: GrowthLimits
) -> Iterator[Growth]:
    """Yield growth (or shrinking) in blocks, or else over all blocks, and in layers."""
    single = list(_in_blocks(record, baseline, limits))
    yield from single or (_over_depth(record, limits) if baseline is None else ())
    yield from _in_layers(record, baseline, limits)


def _in_blocks(
    record: CaptureRecord, baseline: CaptureRecord | None, limits: GrowthLimits
) -> Iterator[Growth]:
    gains, sizes = _gains(record), dict(_sizes(record))
    scales = None if baseline is None else Scales.of(baseline)
    values = [gain for _, gain in gains]
    for index, (place, gain) in enumerate(gains):
        usual = median_of_others(values, index, high=not limits.shrinking)
        old = find_counterpart(place, baseline, block_places)
        before = old.value("gain") if old is not None else None
        size = _size_of(place, sizes)
        extreme = limits.reached(gain, limits.gain) and limits.is_extreme(size)
        if before:
            # If the baseline contains the block, only a change counts.
            grew = limits.reached(gain / before, limits.gain_of_baseline)
            counts = grew and _leaves_scales(size, scales, limits)
        else:
            counts = extreme and (usual is None or limits.reached(gain / usual, limits.of_siblings))
        if counts:
            evidence = {"gain": gain, "of_the_other_blocks": usual, "of_the_baseline": before}
            message = f"multiplies the rms of its input by {format_number(gain)}"
            if before:
                message += f"; in the baseline, the factor is {format_number(before)}"
            elif usual is not None:
                message += f"; the median of the other blocks is {format_number(usual)}"
            yield Growth(place, message, evidence)


def _over_depth(record: CaptureRecord, limits: GrowthLimits) -> Iterator[Growth]:
    gains, sizes = _gains(record), dict(_sizes(record))
    product = math.prod(gain for _, gain in gains)
    if len(gains) < 2 or product == 0:
        return
    average = product ** (1 / len(gains))
    if not limits.reached(product, limits.over_depth) and average < limits.each:
        return
    if limits.is_extreme(_size_of(gains[-1][0], sizes)):
        steepest, gain = (min if limits.shrinking else max)(gains, key=lambda pair: pair[1])
        message = (
            f"multiplies the rms of its input by {format_number(gain)}; "
            f"all blocks together multiply it by {format_number(product)}"
        )
        yield Growth(steepest, message, {"product_of_gains": product})


def _in_layers(
    record: CaptureRecord, baseline: CaptureRecord | None, limits: GrowthLimits
) -> Iterator[Growth]:
    known = dict(_sizes(baseline)) if baseline is not None else {}
    scales = None if baseline is None else Scales.of(baseline)
    sizes = [(place, rms) for place, rms in select_defined(module_places(record), "rms") if rms > 0]
    for (place, rms), usual in zip(sizes, medians_before([rms for _, rms in sizes]), strict=True):
        before = known.get(place.name)
        evidence = {"rms": rms, "median_before": usual, "of_the_baseline": before}
        message = f"has rms {format_number(rms)}; "
        if before:
            changed = limits.reached(rms / before, limits.of_baseline)
            if changed and _leaves_scales(rms, scales, limits):
                message += f"in the baseline it is {format_number(before)} "
                message += f"(ratio: {format_number(rms / before)})"
                yield Growth(place, message, evidence)
        elif usual and limits.reached(rms / usual, limits.of_network) and _is_own(place, rms, limits):
            message += f"the median rms of the layers before it is {format_number(usual)} "
            message += f"(ratio: {format_number(rms / usual)})"
            yield Growth(place, message, evidence)


def _leaves_scales(rms: float | None, scales: Scales | None, limits: GrowthLimits) -> bool:
    """Whether values grow beyond all that the baseline had; what starts small by design grows by learning."""
    return limits.shrinking or rms is None or scales is None or rms > limits.of_scales * scales.largest


def _is_own(place: Place[ModuleRecord], rms: float, limits: GrowthLimits) -> bool:
    """Whether the layer itself makes its values so large or small, and not by design.

    A layer after a small factor is small because its input is. Spectral weights start small in many networks,
    and the scale of the last layer is that of the target.
    """
    by_design = limits.shrinking and place.role in ("spectral", "projection")
    if by_design or not limits.is_extreme(rms):
        return False
    if "input_rms" not in place.entry.stats:
        return True  # a report of an earlier version
    entered = place.value("input_rms")
    return bool(entered) and limits.reached(rms / float(entered or 1), limits.gain)


def _gains(record: CaptureRecord) -> list[tuple[Place[Any], float]]:
    return [(place, gain) for place, gain in select_defined(block_places(record), "gain") if gain > 0]


def _size_of(block: Place[Any], sizes: Mapping[str, float]) -> float | None:
    """Return the rms of what a block returns: of the module, or else of its largest branch."""
    own = sizes.get(block.name)
    branches = [sizes[name] for name in (*block.entry.spectral, *block.entry.local) if name in sizes]
    return max(branches, default=None) if own is None else own


def _sizes(record: CaptureRecord) -> list[tuple[str, float]]:
    return [(place.name, rms) for place, rms in select_defined(module_places(record), "rms")]
