"""Finds layers whose values drift away from zero."""

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
    fires_on=lambda: change_module(healthy_record(), "blocks.1.local", mean=-30.0),
    silent_on=lambda: change_module(healthy_record(), "head", mean=-30.0),
)
def drifting_mean(
    record: CaptureRecord,
    *,
    baseline: CaptureRecord | None = None,
    of_std: float = 10,
    of_size: float = 5,
    of_baseline: float = 5,
) -> Iterator[Symptom]:
    """The signed mean of a layer is far larger than the spread of its values.

    Formula: |mean| >= of_std times std and >= of_size times the median rms of the input and of the layers
    before, in a layer with weights and spatial axes. Where the baseline knows the layer: |mean| / std >=
    of_baseline times that of the baseline, and >= 1. Projections are left out: only their bias may be left.
    Default: of_std 10, of_size 5, of_baseline 5. Untrained layers that hardly vary had means of 80 times
    their spread, but none was larger than the layers before it.
    Wrong when: the data are far from zero, such as temperatures in kelvin, and nothing normalises them.
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
        since = before is not None and drift >= 1 and drift >= of_baseline * before
        size = usual.get(place.name)
        if since or (before is None and drift >= of_std and size is not None and abs(mean) >= of_size * size):
            expected = (
                f"expected less than {format_number(of_std)} times"
                if before is None
                else f"in the baseline {format_number(before)} times"
            )
            yield Symptom(
                severity="warning",
                place=place,
                message=f"has mean {format_number(mean)}, {format_number(drift)} times its standard "
                f"deviation, {expected}",
                evidence={"mean": mean, "std": std, "median_rms_before": size, "of_the_baseline": before},
                advice="Its bias has probably grown: check it; a norm before this layer or a lower learning "
                "rate keeps the mean near zero.",
                explains=Consequences(about=("values",)),
            )


def _drift(place: Place[Any]) -> float | None:
    mean, std = place.value("mean"), place.value("std")
    return None if mean is None or not std else abs(mean) / std
