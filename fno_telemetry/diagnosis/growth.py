"""Where values grow or shrink out of proportion: over a block, over all, beside other layers."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fno_telemetry.diagnosis.contract import Evidence
from fno_telemetry.diagnosis.sites import (
    Site,
    block_sites,
    counterpart,
    module_sites,
    others,
    stated,
    usual_before,
)
from fno_telemetry.records import CaptureRecord


@dataclass(frozen=True)
class Growth:
    """What grows (or shrinks), where, and by which factor."""

    site: Site[Any] | None
    what: str
    factor: float
    evidence: Evidence


def growths(
    record: CaptureRecord,
    baseline: CaptureRecord | None,
    of_siblings: float,
    gain_limit: float,
    of_network: float,
    over_depth: float,
    of_baseline: float,
    gain_of_baseline: float,
    ordinary: float,
    *,
    shrinking: bool = False,
) -> Iterator[Growth]:
    """Yield every growth at or above the limits; with `shrinking`, everything at or below them.

    Without a baseline, what ends up at an `ordinary` size is left out: a norm brings large inputs there too.
    """

    def reaches(factor: float, limit: float) -> bool:
        return factor <= limit if shrinking else factor >= limit

    sizes = [(site, rms) for site, rms in stated(module_sites(record), "rms") if rms > 0]
    size_at = {site.place: rms for site, rms in sizes}
    gains = [(site, gain) for site, gain in stated(block_sites(record), "gain") if gain > 0]
    values = [gain for _, gain in gains]
    alone = False
    for index, (site, gain) in enumerate(gains):
        usual = others(values, index)
        old = counterpart(site, baseline, block_sites)
        before = old.value("gain") if old is not None else None
        beside = reaches(gain, gain_limit) and (usual is None or reaches(gain / usual, of_siblings))
        beside = beside and reaches(size_at.get(site.place, ordinary), ordinary)
        if beside or (before and reaches(gain / before, gain_of_baseline)):
            alone = True
            evidence = {"gain": gain, "of_the_other_blocks": usual, "of_the_baseline": before}
            yield Growth(site, "values in this block", gain, evidence)
    product = math.prod(values)
    ends_at = size_at.get(gains[-1][0].place, ordinary) if gains else ordinary
    if len(values) > 1 and not alone and product > 0 and reaches(product, over_depth):
        steepest = (min if shrinking else max)(gains, key=lambda pair: pair[1])[0]
        if reaches(ends_at, ordinary):
            yield Growth(steepest, "values over all blocks", product, {"product_of_gains": product})
    known = dict(stated_places(baseline)) if baseline is not None else {}
    for (place, rms), usual_size in zip(sizes, usual_before([rms for _, rms in sizes]), strict=True):
        size = known.get(place.place)
        evidence = {"rms": rms, "median_before": usual_size, "of_the_baseline": size}
        apart = usual_size is not None and reaches(rms / usual_size, of_network)
        if usual_size is not None and apart and reaches(rms, ordinary):
            yield Growth(place, "its values", rms / usual_size, evidence)
        elif size and reaches(rms / size, of_baseline):
            yield Growth(place, "its values", rms / size, evidence)


def stated_places(record: CaptureRecord) -> list[tuple[str, float]]:
    """Return the place and rms of every module."""
    return [(site.place, rms) for site, rms in stated(module_sites(record), "rms")]
