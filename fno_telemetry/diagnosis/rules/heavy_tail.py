"""A few values far above all others."""

from collections.abc import Iterator
from typing import Any

from fno_telemetry.diagnosis.contract import Symptom
from fno_telemetry.diagnosis.places import Place, counterpart, input_place, module_places
from fno_telemetry.diagnosis.wording import digits
from fno_telemetry.records import CaptureRecord


def heavy_tail(
    record: CaptureRecord,
    *,
    baseline: CaptureRecord | None = None,
    tail: float = 200,
    peak: float = 30,
    of_input: float = 4,
    of_baseline: float = 5,
) -> Iterator[Symptom]:
    """A layer has a few values that dwarf the others: outliers, or one channel that took over.

    Formula: in a layer with weights, abs_p99 / abs_p50 >= tail, or max |x| / abs_p99 >= peak; each also >=
    of_input times the model's input's; or either >= of_baseline times its own in the baseline.
    Default: tail 200, peak 30, of_input 4; of_baseline 5: in the course of a healthy training no layer's
    grew by more than 2.1. Healthy layers with weights had at most 93 and 6; activations are left out,
    because most of what a GELU returns is near zero.
    Wrong when: the field itself is nearly empty, such as a detector image, and the layer only passes it on.
    """
    entered = input_place(record)
    own_tail = (entered.value("tail_ratio") or 0.0) if entered is not None else 0.0
    own_peak = (_peak(entered) or 0.0) if entered is not None else 0.0
    for place in module_places(record):
        if "weight_norm" not in place.entry.stats:
            continue
        ratio, top = place.value("tail_ratio"), _peak(place)
        long = ratio is not None and ratio >= max(tail, of_input * own_tail)
        high = top is not None and top >= max(peak, of_input * own_peak)
        known = counterpart(place, baseline, module_places)
        before = (known.value("tail_ratio"), _peak(known)) if known is not None else (None, None)
        grown = [
            now is not None and then is not None and now >= of_baseline * then
            for now, then in zip((ratio, top), before, strict=True)
        ]
        # Where the baseline knows the layer, only a change counts.
        if (known is None and (long or high)) or any(grown):
            peaked = high or grown[1]
            yield Symptom(
                severity="warning",
                place=place,
                message=f"has outliers: the largest is {digits(top)} times the 99th percentile of |x|"
                if peaked and top is not None
                else f"has values apart: the 99th percentile of |x| is {digits(ratio or 0.0)} times the 50th",
                evidence={
                    "tail_ratio": ratio,
                    "max_over_abs_p99": top,
                    "tail_ratio_of_the_baseline": before[0],
                    "max_over_abs_p99_of_the_baseline": before[1],
                },
                advice="Look for one channel or mode that took over; clip gradients, or use a decay.",
                explains=frozenset({"heavy_tail", "overflow_risk"}),
            )


def _peak(place: Place[Any]) -> float | None:
    low, high, usual = place.value("min"), place.value("max"), place.value("abs_p99")
    return None if low is None or high is None or not usual else float(max(abs(low), abs(high))) / usual
