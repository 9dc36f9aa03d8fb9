"""Finds layers whose mean is far from zero."""

from collections.abc import Iterator
from typing import Any

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_module, healthy_record
from fno_telemetry.diagnosis.places import (
    Place,
    find_counterpart,
    medians_before,
    module_places,
    select_defined,
    tensor_places,
)
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord

_LEFT_OUT = frozenset({"projection", "activation"})


@rule(
    about="values",
    fires_on=lambda: change_module(
        healthy_record(), "blocks.1.local", mean=-30.0, rms=30.0, min=-34.0, max=-26.0
    ),
    silent_on=lambda: change_module(healthy_record(), "head", mean=-30.0, rms=30.0, min=-34.0, max=-26.0),
)
def drifting_mean(
    record: CaptureRecord,
    *,
    baseline: CaptureRecord | None = None,
    of_std: float = 10,
    of_size: float = 5,
    of_baseline: float = 5,
) -> Iterator[Symptom]:
    """The mean of a layer's values is far from zero compared with their standard deviation.

    Formula: in a layer with weights and spatial axes that is neither an activation function nor (part of) a
        projection, one of
        (1) if the baseline contains the layer: |mean| / std >= `of_baseline` (5), and >= `of_baseline` times
            its value in the baseline;
        (2) otherwise: |mean| >= `of_std` (10) · std, and |mean| >= `of_size` (5) times the median rms of the
            model's input and of all layers before the layer.
        Projections are never reported, because their output may consist of little more than their bias.
    Default: `of_std` is 10, `of_size` is 5 and `of_baseline` is 5. Untrained layers whose values hardly vary
        had a |mean| of 80 times their std, but in none of them was |mean| larger than the median rms of the
        layers before it.
    False alarm when: the data are far from zero, such as temperatures in kelvin, and nothing normalises them.
    """
    projecting = {place.entry.name for place in module_places(record) if place.role == "projection"}
    sizes = select_defined(tensor_places(record), "rms")
    usual = dict(
        zip((place.name for place, _ in sizes), medians_before([rms for _, rms in sizes]), strict=True)
    )
    for place in module_places(record):
        mean, std = place.value("mean"), place.value("std")
        if mean is None or not std or "weight_norm" not in place.entry.stats or not place.entry.spatial_axes:
            continue
        parent = str(getattr(place.entry, "parent", None) or "")
        if place.role in _LEFT_OUT or parent in projecting:
            continue
        drift = abs(mean) / std
        known = find_counterpart(place, baseline, module_places)
        before = _drift(known) if known is not None else None
        since = before is not None and drift >= of_baseline * max(before, 1)
        size = usual.get(place.name)
        if since or (before is None and drift >= of_std and size is not None and abs(mean) >= of_size * size):
            expected = (
                f"expected: less than {format_number(of_std)} times"
                if before is None
                else f"in the baseline: {format_number(before)} times"
            )
            yield Symptom(
                severity="warning",
                place=place,
                message=f"has mean {format_number(mean)}; its absolute value is {format_number(drift)} times "
                f"the standard deviation ({expected})",
                evidence={"mean": mean, "std": std, "median_rms_before": size, "of_the_baseline": before},
                advice="Its bias has probably grown: check it. A normalisation layer before this layer, or a "
                "lower learning rate, keeps the mean near zero.",
                explains=Consequences(about=("values",)),
            )


def _drift(place: Place[Any]) -> float | None:
    mean, std = place.value("mean"), place.value("std")
    return None if mean is None or not std else abs(mean) / std
