"""Finds an output without structure."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Symptom, rule
from fno_telemetry.diagnosis.example_records import change_output, healthy_record
from fno_telemetry.diagnosis.places import output_place
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord


@rule(
    about="values",
    fires_on=lambda: change_output(healthy_record(), dc_fraction=1.0),
    silent_on=lambda: change_output(healthy_record(), dc_fraction=1 - 1e-6),
)
def constant_output(
    record: CaptureRecord,
    *,
    baseline: CaptureRecord | None = None,
    least_structure: float = 1e-8,
    of_baseline: float = 0.1,
) -> Iterator[Symptom]:
    """Each field of the output is constant.

    Formula: 1 - dc_fraction <= least_structure, the share of energy outside the fields' means; or
    constant_channel_fraction = 1. A warning: 1 - dc_fraction <= of_baseline times that of the baseline.
    Default: least_structure 1e-8, an amplitude of 1e-4 of the mean; untrained networks had 1e-5 and more.
    of_baseline 0.1: during healthy training it did not fall.
    Wrong when: the network is meant to return constant fields.
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
    message = "is constant in every field" if none_left else "is nearly constant in every field"
    if mean is not None:
        message += f" (mean {format_number(mean)})"
    if dc is not None and not none_left and before is not None:
        message += (
            f": {format_number(1 - dc)} of its energy is outside the means, in the baseline "
            f"{format_number(before)}"
        )
    yield Symptom(
        severity="error" if none_left else "warning",
        place=place,
        message=message,
        evidence={
            "dc_fraction": dc,
            "constant_channel_fraction": constant,
            "std": place.value("std"),
            "of_the_baseline": known,
        },
        advice="A layer before it has probably lost the structure: find the first such layer, then check the "
        "learning rate and the loss.",
    )
