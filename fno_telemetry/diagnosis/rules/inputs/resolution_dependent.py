"""Finds networks that give other fields on another grid, and the layer where that begins."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_module, change_output, healthy_record
from fno_telemetry.diagnosis.places import (
    Place,
    find_counterpart,
    module_places,
    output_place,
    select_defined,
)
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord, ModuleRecord, ResolutionRecord, Value

_SEVERAL_POINTS = re.compile(r"Conv(Transpose)?[123]d|(Avg|Max)Pool[123]d|Upsample")
_NORMS = re.compile(r"(Layer|Group|Instance|Batch|RMS)Norm", re.I)


def _resampled(first: float, last: float) -> CaptureRecord:
    record = change_module(healthy_record(), "lifter.conv", resolution_difference=first, resolution_gain=1.0)
    record = change_output(record, resolution_difference=last, resolution_gain=1.0)
    return replace(
        record, resolution=ResolutionRecord(factor=2.0, sizes=(64, 64), of_sizes=(32, 32), of_digest=None)
    )


@rule(
    about="input",
    needs=("resolution",),
    fires_on=lambda: _resampled(0.3, 0.5),
    silent_on=lambda: _resampled(0.15, 0.15),
)
def resolution_dependent(
    record: CaptureRecord,
    *,
    resampled: CaptureRecord | None = None,
    differs: float = 0.2,
    differs_when_coarser: float = 0.35,
    begins: float = 0.5,
    resized: float = 1.5,
) -> Iterator[Symptom]:
    """The network gives another output for the same fields at another resolution.

    A neural operator maps fields to fields, whatever the grid. Layers that span a number of points, such as
    convolutions of 3 x 3, padding and pooling, span another distance on another grid.

    Formula: d is resolution_difference, ‖on the other grid - before‖ / ‖before‖ around the means, over the
        frequencies that both grids have. At the output d >= `differs` (0.2) on a finer grid, or d >=
        `differs_when_coarser` (0.35) on a coarser one. The place is the first layer whose d is at least
        `begins` (0.5) times that limit; its values are resized where resolution_gain is at least `resized`
        (1.5) or at most 1 / `resized`.
    Default: on twice the grid, d was up to 0.14 in trained networks whose layers are spectral or see one
        point each, where activation functions make frequencies that the coarser grid cannot hold; and 0.22
        and more in those with convolutions of 3 x 3. On half of the grid, which cuts frequencies off the
        input, it was up to 0.23, and 0.37 and more.
    False alarm when: the fields do not go on periodically, so that resampling adds ripples at their edges,
        or an input is a mask or has jumps.
    """
    other = resampled or record
    found, end = other.resolution, output_place(other)
    if found is None or end is None:
        return
    difference = end.value("resolution_difference")
    limit = differs if found.factor > 1 else differs_when_coarser
    if difference is None or difference < limit:
        return
    layers = select_defined(module_places(other), "resolution_difference")
    first = next(((place, value) for place, value in layers if value >= begins * limit), None)
    place: Place[Any] = end if first is None else first[0]
    evidence: dict[str, Value] = {"output_difference": difference, "factor": found.factor}
    before, after = (" x ".join(map(str, sizes)) for sizes in (found.of_sizes, found.sizes))
    message = f"differs by {format_number(difference)} of its size"
    gain = None
    if first is not None:
        message = f"differs by {format_number(first[1])} of its size, and the output by "
        message += f"{format_number(difference)},"
        evidence |= {"resolution_difference": first[1]}
        gain = place.value("resolution_gain")
        gain = gain if gain is not None and not 1 / resized < gain < resized else None
    message += f" when the same fields have {after} instead of {before} points"
    if gain is not None:
        message += f"; its values are {format_number(gain)} times as large"
        evidence |= {"resolution_gain": gain}
    evidence |= _find_errors(record, other)
    yield Symptom(
        severity="warning",
        place=_place_in(record, place),
        message=message,
        evidence=evidence,
        advice=_advise(place, gain),
        confirm="after the change, resolution_difference of this layer and of the output should be near 0.1.",
        explains=Consequences(rules=("other_resolution",)),
    )


def _place_in(record: CaptureRecord, place: Place[Any]) -> Place[Any] | None:
    """Return the place in the record that is judged, which may lack what the other one has."""
    if place.name == "output":
        return output_place(record)
    return find_counterpart(place, record, module_places) or output_place(record)


def _find_errors(record: CaptureRecord, other: CaptureRecord) -> dict[str, Value]:
    if record is other or record.accuracy is None or other.accuracy is None:
        return {}
    errors = [one.accuracy.stats.get("error_to_mean_predictor") for one in (record, other) if one.accuracy]
    return dict(zip(("error_to_mean_predictor", "on_the_other_grid"), errors, strict=True))


def _advise(place: Place[Any], gain: float | None) -> str:
    name = place.entry.class_name if isinstance(place.entry, ModuleRecord) else ""
    if gain is not None and not _SEVERAL_POINTS.fullmatch(name):
        return (
            "The normalisation probably depends on the number of points: give the transform and its inverse "
            "the same `norm`, and divide sums over positions by their number."
        )
    if _SEVERAL_POINTS.fullmatch(name):
        return (
            "A kernel of several points spans half of the distance on a grid of twice the points: use a "
            "kernel of 1 x 1 or a spectral layer there, or run the network at the resolution of its training."
        )
    if _NORMS.match(name):
        return "A norm over positions of sharp fields depends on the grid: leave it out, or norm channels."
    return (
        "Look here for kernels larger than 1 x 1, padding, pooling or positions counted in points, and modes "
        "that one of the grids does not have; or run the network at the resolution of its training."
    )
