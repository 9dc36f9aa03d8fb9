"""Samples that cannot be what the network was made for."""

from collections.abc import Iterator
from typing import Any

from fno_telemetry.diagnosis.contract import OF_VALUES, Evidence, Symptom
from fno_telemetry.diagnosis.places import Place, input_place
from fno_telemetry.diagnosis.wording import digits
from fno_telemetry.findings import Severity
from fno_telemetry.records import CaptureRecord

_SKETCH_ERROR = 0.004
_EIGHT_BITS = 255
_PERCENTILES = ("min", "p05", "p50", "p95", "p99", "max")


def bad_input(
    record: CaptureRecord, *, constant_below: float = 1e-7, least_count: float = 20, thin_axis: float = 4
) -> Iterator[Symptom]:
    """The model's input is broken, blank, constant, of counts, or has its axes in the wrong order.

    Formula: elements that are NaN or infinite; max |x| = 0; std <= constant_below * max |x|; all samples
    equal (sample_variation = 0 with two samples or more); counts: no value below 0, minimum and maximum
    whole numbers, the maximum at least least_count, four different percentiles or more; axes: a spatial
    axis of at most thin_axis points where the channels are four times as many or more.
    Default: constant_below is the resolution of float32, least_count leaves out masks and class numbers,
    thin_axis is more than the channels that images and fields commonly have.
    Wrong when: the network was trained on whole numbers (images up to 255 are left out), or on thin fields.
    """
    place = input_place(record)
    if place is None:
        return
    yield from _broken(place)
    largest = _largest(place)
    if largest is None:
        return
    std, variation = place.value("std"), place.value("sample_variation")
    if largest == 0:
        yield _symptom(place, "error", "is zero everywhere", {"max": 0.0}, "Check how the samples are read.")
    elif std is not None and std <= constant_below * largest:
        evidence = {"std": std, "max": largest}
        yield _symptom(place, "error", "is constant", evidence, "Check how the samples are read.")
    elif variation == 0 and place.entry.shape[0] > 1:
        evidence = {"sample_variation": 0.0, "samples": place.entry.shape[0]}
        advice = "Capture on samples that differ; nothing can be said of dependence on the input otherwise."
        yield _symptom(place, "warning", "is the same in every sample", evidence, advice, explains=False)
    yield from _counts(place, least_count)
    yield from _axes(place, thin_axis)


def _broken(place: Place[Any]) -> Iterator[Symptom]:
    nan, infinite = place.value("nan_count") or 0, place.value("inf_count") or 0
    if nan or infinite:
        evidence = {
            "nan_count": nan,
            "inf_count": infinite,
            "finite_fraction": place.value("finite_fraction"),
        }
        message = f"holds {digits(nan)} NaN and {digits(infinite)} infinite elements"
        yield _symptom(place, "error", message, evidence, "Mend or leave out these samples.")


def _counts(place: Place[Any], least_count: float) -> Iterator[Symptom]:
    found = [place.value(name) for name in _PERCENTILES]
    values = [float(value) for value in found if value is not None]
    if len(values) < len(_PERCENTILES) or values[0] < 0 or values[-1] < least_count:
        return
    if values[-1] == _EIGHT_BITS:
        return  # an image
    # Percentiles come from a sketch: whole where they are so to within its error, which tells below 100.
    small = [value for value in values[1:-1] if value < 100]
    whole = all(abs(value - round(value)) <= _SKETCH_ERROR * value for value in small)
    if whole and values[0].is_integer() and values[-1].is_integer() and len(set(values)) >= 4:
        evidence = {"min": values[0], "p50": values[2], "max": values[-1]}
        advice = "Take the square root of counts and scale it as the training data were scaled."
        message = f"looks like counts (whole numbers up to {digits(values[-1])}), not amplitudes"
        yield _symptom(place, "warning", message, evidence, advice, explains=False)


def _axes(place: Place[Any], thin_axis: float) -> Iterator[Symptom]:
    shape, space = place.entry.shape, place.entry.spatial_axes
    channels = [size for axis, size in enumerate(shape) if axis and axis not in space]
    thin = [axis for axis in space if shape[axis] <= thin_axis]
    if len(channels) == 1 and thin and len(space) > len(thin) and channels[0] >= 4 * thin_axis:
        evidence = {"channels": channels[0], **{f"size_of_axis_{axis}": shape[axis] for axis in thin}}
        message = f"of shape {shape} has {channels[0]} channels and a spatial axis of {shape[thin[0]]}"
        advice = "Axes may be in the wrong order: give them with --axes, for example NHWC."
        yield _symptom(place, "warning", message, evidence, advice, explains=False)


def _largest(place: Place[Any]) -> float | None:
    low, high = place.value("min"), place.value("max")
    return None if low is None or high is None else float(max(abs(low), abs(high)))


def _symptom(
    place: Place[Any],
    severity: Severity,
    message: str,
    evidence: Evidence,
    advice: str,
    explains: bool = True,
) -> Symptom:
    return Symptom(
        severity=severity,
        place=place,
        message=message,
        evidence=evidence,
        advice=advice,
        explains=OF_VALUES | {"non_finite"} if explains else frozenset(),
    )
