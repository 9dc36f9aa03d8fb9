"""A few values far above all others."""

from collections.abc import Iterator
from typing import Any

from fno_telemetry.diagnosis.contract import Symptom
from fno_telemetry.diagnosis.sites import Site, input_site, module_sites
from fno_telemetry.diagnosis.wording import digits
from fno_telemetry.records import CaptureRecord


def heavy_tail(
    record: CaptureRecord, *, tail: float = 200, peak: float = 30, of_input: float = 4
) -> Iterator[Symptom]:
    """A layer has a few values that dwarf the others: outliers, or one channel that took over.

    Formula: in a layer with weights, abs_p99 / abs_p50 >= tail, or max |x| / abs_p99 >= peak; each also >=
    of_input times the model's input's.
    Default: tail 200, peak 30. Healthy layers with weights had at most 93 and 6; activations are left out,
    because most of what a GELU returns is near zero.
    Wrong when: the field itself is nearly empty, such as a detector image, and the layer only passes it on.
    """
    entered = input_site(record)
    own_tail = (entered.value("tail_ratio") or 0.0) if entered is not None else 0.0
    own_peak = (_peak(entered) or 0.0) if entered is not None else 0.0
    for site in module_sites(record):
        if "weight_norm" not in site.entry.stats:
            continue
        ratio, top = site.value("tail_ratio"), _peak(site)
        long = ratio is not None and ratio >= max(tail, of_input * own_tail)
        high = top is not None and top >= max(peak, of_input * own_peak)
        if long or high:
            yield Symptom(
                severity="warning",
                site=site,
                message=f"has outliers: the largest is {digits(top or 0.0)} times the 99th percentile of |x|",
                evidence={"tail_ratio": ratio, "max_over_abs_p99": top, "abs_p99": site.value("abs_p99")},
                advice="Look for one channel or mode that took over; clip gradients, or use a decay.",
                explains=frozenset({"heavy_tail", "overflow_risk"}),
            )


def _peak(site: Site[Any]) -> float | None:
    low, high, usual = site.value("min"), site.value("max"), site.value("abs_p99")
    return None if low is None or high is None or not usual else float(max(abs(low), abs(high))) / usual
