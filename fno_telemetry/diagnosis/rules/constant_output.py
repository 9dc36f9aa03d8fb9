"""An output without structure."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Symptom
from fno_telemetry.diagnosis.places import output_place
from fno_telemetry.diagnosis.wording import digits
from fno_telemetry.records import CaptureRecord


def constant_output(
    record: CaptureRecord,
    *,
    baseline: CaptureRecord | None = None,
    least_structure: float = 1e-8,
    of_baseline: float = 0.1,
) -> Iterator[Symptom]:
    """Each field that comes out is one number.

    Formula: 1 - dc_fraction <= least_structure, the share of energy that is not in the fields' means; or
    constant_channel_fraction = 1. A warning: 1 - dc_fraction <= of_baseline times the baseline's.
    Default: least_structure 1e-8, an amplitude of 1e-4 beside the mean; untrained networks had 1e-5 and more.
    of_baseline 0.1: in the course of a healthy training it did not fall.
    Wrong when: constant fields are what the network is to return.
    """
    place = output_place(record)
    if place is None or place.value("rms") in (None, 0):
        return
    dc, constant = place.value("dc_fraction"), place.value("constant_channel_fraction")
    flat = dc is not None and 1 - dc <= least_structure
    healthy = output_place(baseline) if baseline is not None else None
    known = healthy.value("dc_fraction") if healthy is not None else None
    before = None if known is None else 1 - known
    fell = dc is not None and before is not None and 1 - dc <= of_baseline * before
    none_left = flat or constant == 1
    if not none_left and not fell:
        return
    mean = place.value("mean")
    yield Symptom(
        severity="error" if none_left else "warning",
        place=place,
        message=("is" if none_left else "is nearly")
        + " one number per field"
        + ("" if mean is None else f" (mean {digits(mean)})"),
        evidence={
            "dc_fraction": dc,
            "constant_channel_fraction": constant,
            "std": place.value("std"),
            "of_the_baseline": known,
        },
        advice="Look for the first layer that lost its structure; then at the rate and the loss.",
    )
