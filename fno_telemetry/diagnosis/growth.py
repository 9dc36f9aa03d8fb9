"""Where values grow or shrink out of proportion: over a block, over all, beside other layers."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fno_telemetry.diagnosis.contract import Evidence
from fno_telemetry.diagnosis.places import (
    Place,
    block_places,
    counterpart,
    medians_before,
    module_places,
    others,
    select_defined,
)
from fno_telemetry.records import CaptureRecord


@dataclass(frozen=True)
class Growth:
    """What grows (or shrinks), where, and by which factor."""

    place: Place[Any]
    what: str
    factor: float
    evidence: Evidence


@dataclass(frozen=True, kw_only=True)
class GrowthLimits:
    """Factors from which on a growth counts; with `shrinking`, down to which a shrinkage does.

    Without a baseline, what ends up at an `ordinary` size does not count: a norm brings large inputs there.
    """

    of_siblings: float
    gain: float
    of_network: float
    over_depth: float
    of_baseline: float
    gain_of_baseline: float
    ordinary: float
    shrinking: bool = False

    def reached(self, factor: float, limit: float) -> bool:
        """Whether the factor is at the limit or beyond."""
        return factor <= limit if self.shrinking else factor >= limit

    def is_extreme(self, size: float | None) -> bool:
        """Whether a layer of this rms is out of the ordinary; one of unknown size may be."""
        return size is None or self.reached(size, self.ordinary)


def growths(record: CaptureRecord, baseline: CaptureRecord | None, limits: GrowthLimits) -> Iterator[Growth]:
    """Yield every growth: of blocks, else over all of them, and of layers."""
    single = list(_in_blocks(record, baseline, limits))
    yield from single or (_over_depth(record, limits) if baseline is None else ())
    yield from _of_layers(record, baseline, limits)


def _in_blocks(
    record: CaptureRecord, baseline: CaptureRecord | None, limits: GrowthLimits
) -> Iterator[Growth]:
    gains, sizes = _gains(record), dict(_sizes(record))
    values = [gain for _, gain in gains]
    for index, (place, gain) in enumerate(gains):
        usual = others(values, index)
        old = counterpart(place, baseline, block_places)
        before = old.value("gain") if old is not None else None
        apart = limits.reached(gain, limits.gain) and limits.is_extreme(sizes.get(place.name))
        if before:
            # Where the baseline knows the block, only a change counts.
            counts = limits.reached(gain / before, limits.gain_of_baseline)
        else:
            counts = apart and (usual is None or limits.reached(gain / usual, limits.of_siblings))
        if counts:
            evidence = {"gain": gain, "of_the_other_blocks": usual, "of_the_baseline": before}
            yield Growth(place, "values in this block", gain, evidence)


def _over_depth(record: CaptureRecord, limits: GrowthLimits) -> Iterator[Growth]:
    gains, sizes = _gains(record), dict(_sizes(record))
    product = math.prod(gain for _, gain in gains)
    if len(gains) < 2 or product == 0 or not limits.reached(product, limits.over_depth):
        return
    if limits.is_extreme(sizes.get(gains[-1][0].name)):
        steepest = (min if limits.shrinking else max)(gains, key=lambda pair: pair[1])[0]
        yield Growth(steepest, "values over all blocks", product, {"product_of_gains": product})


def _of_layers(
    record: CaptureRecord, baseline: CaptureRecord | None, limits: GrowthLimits
) -> Iterator[Growth]:
    known = dict(_sizes(baseline)) if baseline is not None else {}
    sizes = [(place, rms) for place, rms in select_defined(module_places(record), "rms") if rms > 0]
    for (place, rms), usual in zip(sizes, medians_before([rms for _, rms in sizes]), strict=True):
        before = known.get(place.name)
        evidence = {"rms": rms, "median_before": usual, "of_the_baseline": before}
        if before:
            if limits.reached(rms / before, limits.of_baseline):
                yield Growth(place, "its values", rms / before, evidence)
        elif usual and limits.reached(rms / usual, limits.of_network) and limits.is_extreme(rms):
            yield Growth(place, "its values", rms / usual, evidence)


def _gains(record: CaptureRecord) -> list[tuple[Place[Any], float]]:
    return [(place, gain) for place, gain in select_defined(block_places(record), "gain") if gain > 0]


def _sizes(record: CaptureRecord) -> list[tuple[str, float]]:
    return [(place.name, rms) for place, rms in select_defined(module_places(record), "rms")]
