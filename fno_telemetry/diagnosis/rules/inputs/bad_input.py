"""Finds samples that cannot be what the network was made for."""

from collections.abc import Iterator
from typing import Any

from fno_telemetry.diagnosis.contract import Consequences, Evidence, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_input, healthy_record
from fno_telemetry.diagnosis.places import Place, input_place
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.findings import Severity
from fno_telemetry.records import CaptureRecord

_SKETCH_ERROR = 0.004
_EIGHT_BITS = 255
_MARKS = 2  # -1 for gaps, -2 for pixels that are too noisy
_PERCENTILES = ("min", "p05", "p50", "p95", "p99", "max")
_READ = "The samples were probably read from the wrong place: check the file and the name of the array."


@rule(
    about="input",
    fires_on=lambda: change_input(healthy_record(), nan_count=3, finite_fraction=1 - 3 / 8192),
    silent_on=lambda: change_input(healthy_record(), mean=1e-9, min=0.0, max=2e-9, std=1e-9, rms=1.4e-9),
)
def bad_input(
    record: CaptureRecord, *, constant_below: float = 1e-7, least_count: float = 20, thin_axis: float = 4
) -> Iterator[Symptom]:
    """The model's input is not finite, is constant, holds raw counts, or has its axes in the wrong order.

    Raw counts are non-negative whole numbers that were not normalised.

    Formula: one of
        (1) an element is NaN or infinite;
        (2) max |x| = 0;
        (3) std <= `constant_below` (1e-7) · max |x|;
        (4) there are two samples or more, and all are equal (sample_variation = 0);
            (2) to (4) only if no other input of the model differs between samples;
        (5) raw counts: no value is negative, except marks; the minimum, the maximum and those of the 5th to
            99th percentiles that are below 100 are whole numbers; the maximum is >= `least_count` (20); and
            at least four of the minimum, the 5th, 50th, 95th and 99th percentile and the maximum are
            different. Marks are what detectors set masked pixels to: the median is not negative, and the 5th
            percentile is not negative, or equal to the minimum, or both are at least -2;
        (6) axes: one spatial axis has at most `thin_axis` (4) points, another has more, and the number of
            channels is >= 4 · `thin_axis`.
    Default: `constant_below` is 1e-7, the resolution of float32. `least_count` is 20, because the numbers in
        masks and class labels are usually smaller. `thin_axis` is 4, because images and fields usually have
        at most four channels.
    False alarm when: the network was trained on whole numbers, or on fields with a spatial axis of a few
        points. An input with a maximum of 255 is taken for an image and never reported as raw counts.
    """
    place = input_place(record)
    if place is None:
        return
    yield from _find_non_finite(place)
    largest = _largest(place)
    if largest is None:
        return
    # A grid, a time or an initial state may be the same for all samples.
    if not any(entered.stats.get("sample_variation") for entered in record.inputs):
        yield from _find_constant(place, largest, constant_below)
    yield from _find_counts(place, least_count)
    yield from _find_swapped_axes(place, thin_axis)


def _find_constant(place: Place[Any], largest: float, constant_below: float) -> Iterator[Symptom]:
    std, variation = place.value("std"), place.value("sample_variation")
    if largest == 0:
        yield _symptom(place, "error", "is zero everywhere", {"max": 0.0}, _READ)
    elif std is not None and std <= constant_below * largest:
        message = f"is constant: its standard deviation is {format_number(std)}, and its largest |x| is "
        evidence = {"std": std, "max": largest}
        yield _symptom(place, "error", message + format_number(largest), evidence, _READ)
    elif variation == 0 and place.entry.shape[0] > 1:
        evidence = {"sample_variation": 0.0, "samples": place.entry.shape[0]}
        advice = (
            "One sample was probably read several times: capture on different samples. Equal samples cannot "
            "show how the network depends on its input."
        )
        yield _symptom(place, "warning", "is the same in every sample", evidence, advice, explains=False)


def _find_non_finite(place: Place[Any]) -> Iterator[Symptom]:
    nan, infinite = place.value("nan_count") or 0, place.value("inf_count") or 0
    if nan or infinite:
        evidence = {
            "nan_count": nan,
            "inf_count": infinite,
            "finite_fraction": place.value("finite_fraction"),
        }
        message = f"contains {format_number(nan)} NaN and {format_number(infinite)} infinite values"
        advice = (
            "Values are probably missing from the data, or its preparation divides by zero: repair these "
            "samples, or remove them."
        )
        yield _symptom(place, "error", message, evidence, advice)


def _find_counts(place: Place[Any], least_count: float) -> Iterator[Symptom]:
    found = [place.value(name) for name in _PERCENTILES]
    values = [float(value) for value in found if value is not None]
    if len(values) < len(_PERCENTILES) or _is_signed(values) or values[-1] < least_count:
        return
    if values[-1] == _EIGHT_BITS:
        return  # an image
    # Percentiles come from a sketch: below 100 its error is small enough to tell whole numbers from others.
    small = [value for value in values[1:-1] if value < 100]
    whole = all(abs(value - round(value)) <= _SKETCH_ERROR * abs(value) for value in small)
    if whole and values[0].is_integer() and values[-1].is_integer() and len(set(values)) >= 4:
        evidence = {"min": values[0], "p50": values[2], "max": values[-1]}
        message = f"looks like raw counts (whole numbers up to {format_number(values[-1])}, not normalised)"
        advice = (
            "The samples were probably not normalised: take the square root of the counts to get amplitudes, "
            "and scale these like the training data."
        )
        yield _symptom(place, "warning", message, evidence, advice, explains=False)


def _is_signed(values: list[float]) -> bool:
    """Return whether negative values are more than marks; those of masked pixels are -1, -2 or one other."""
    low, fifth, median = values[:3]
    marks = fifth >= 0 or low >= -_MARKS or abs(fifth - low) <= _SKETCH_ERROR * abs(low)
    return low < 0 and (median < 0 or not marks)


def _find_swapped_axes(place: Place[Any], thin_axis: float) -> Iterator[Symptom]:
    shape, space = place.entry.shape, place.entry.spatial_axes
    channels = [size for axis, size in enumerate(shape) if axis and axis not in space]
    thin = [axis for axis in space if shape[axis] <= thin_axis]
    if len(channels) == 1 and thin and len(space) > len(thin) and channels[0] >= 4 * thin_axis:
        evidence = {"channels": channels[0], **{f"size_of_axis_{axis}": shape[axis] for axis in thin}}
        message = (
            f"has shape {shape}, which was read as {channels[0]} channels with a length of only "
            f"{shape[thin[0]]} along spatial axis {thin[0]}"
        )
        advice = "The axes are probably in another order: state the order when you capture, for example NHWC."
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
        explains=Consequences(about=("values", "finiteness")) if explains else Consequences(),
    )
