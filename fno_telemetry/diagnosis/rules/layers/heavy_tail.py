"""Finds a few values far above all others."""

from collections.abc import Iterator
from typing import Any

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_input, change_module, healthy_record
from fno_telemetry.diagnosis.places import Place, find_counterpart, input_place, module_places
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord, ModuleRecord


@rule(
    about="values",
    fires_on=lambda: change_module(healthy_record(), "blocks.1.local", tail_ratio=300.0),
    silent_on=lambda: change_input(
        change_module(healthy_record(), "blocks.1.local", tail_ratio=300.0), tail_ratio=100.0
    ),
)
def heavy_tail(
    record: CaptureRecord,
    *,
    baseline: CaptureRecord | None = None,
    tail: float = 200,
    peak: float = 30,
    of_input: float = 4,
    of_baseline: float = 5,
) -> Iterator[Symptom]:
    """A few values of a layer are far larger than the others: outliers, or one channel that dominates.

    Formula: let r1 = abs_p99 / abs_p50 and r2 = max |x| / abs_p99, where abs_p50 and abs_p99 are the 50th and
        99th percentile of |x|. In a layer with weights (but not for Fourier coefficients, or other tensors
        with more than two axes none of which is spatial), one of
        (1) if the baseline contains the layer: r1 or r2 >= `of_baseline` (5) times its value in the baseline;
        (2) otherwise: r1 >= `tail` (200), and >= `of_input` (4) times r1 of the model's input;
        (3) otherwise: r2 >= `peak` (30), and >= `of_input` (4) times r2 of the model's input.
    Default: `tail` is 200, `peak` is 30 and `of_input` is 4: healthy layers with weights had r1 up to 93 and
        r2 up to 6. `of_baseline` is 5: during healthy training, neither r1 nor r2 of any layer grew by more
        than a factor of 2.1. Activation functions are never reported, because most values that a GELU returns
        are near zero.
    False alarm when: most of the field itself is nearly zero, as in a detector image, and the layer only
        passes it on.
    """
    entered = input_place(record)
    own_tail = (entered.value("tail_ratio") or 0.0) if entered is not None else 0.0
    own_peak = (_peak(entered) or 0.0) if entered is not None else 0.0
    for place in module_places(record):
        if "weight_norm" not in place.entry.stats or _is_no_field(place):
            continue
        ratio, top = place.value("tail_ratio"), _peak(place)
        most_tail, most_peak = max(tail, of_input * own_tail), max(peak, of_input * own_peak)
        long = ratio is not None and ratio >= most_tail
        high = top is not None and top >= most_peak
        known = find_counterpart(place, baseline, module_places)
        before = (known.value("tail_ratio"), _peak(known)) if known is not None else (None, None)
        grown = [
            now is not None and then is not None and now >= of_baseline * then
            for now, then in zip((ratio, top), before, strict=True)
        ]
        # If the baseline contains the layer, only a change counts.
        if (known is None and (long or high)) or any(grown):
            peaked = high or grown[1]
            if peaked and top is not None:
                message = f"has outliers: the largest |x| is {format_number(top)} times the 99th percentile "
                message += "of |x|"
                then, most = before[1], most_peak
            else:
                message = "has a heavy tail: the 99th percentile of |x| is "
                message += f"{format_number(ratio or 0.0)} times the 50th"
                then, most = before[0], most_tail
            if then is None:
                message += f" (expected: less than {format_number(most)} times)"
            else:
                message += f" (in the baseline: {format_number(then)} times)"
            yield Symptom(
                severity="warning",
                place=place,
                message=message,
                evidence={
                    "tail_ratio": ratio,
                    "max_over_abs_p99": top,
                    "tail_ratio_of_the_baseline": before[0],
                    "max_over_abs_p99_of_the_baseline": before[1],
                },
                advice="One channel or mode probably dominates: find it, and clip gradients or use weight "
                "decay.",
                explains=Consequences(rules=("heavy_tail", "overflow_risk")),
            )


def _is_no_field(place: Place[ModuleRecord]) -> bool:
    """Whether the values are not those of a field: of Fourier coefficients, few are large by nature."""
    return len(place.entry.shape) > 2 and not place.entry.spatial_axes


def _peak(place: Place[Any]) -> float | None:
    low, high, usual = place.value("min"), place.value("max"), place.value("abs_p99")
    return None if low is None or high is None or not usual else float(max(abs(low), abs(high))) / usual
