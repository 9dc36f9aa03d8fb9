"""Finds an output whose fields are constant in space."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Symptom, rule
from fno_telemetry.diagnosis.example_records import change_output, healthy_record
from fno_telemetry.diagnosis.places import output_place
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord


@rule(
    about="values",
    fires_on=lambda: change_output(
        healthy_record(), dc_fraction=1.0, constant_channel_fraction=1.0, std=0.0, min=0.1, max=0.1, rms=0.1
    ),
    silent_on=lambda: change_output(healthy_record(), dc_fraction=1 - 1e-6),
)
def constant_output(
    record: CaptureRecord,
    *,
    baseline: CaptureRecord | None = None,
    least_structure: float = 1e-8,
    of_baseline: float = 0.1,
) -> Iterator[Symptom]:
    """Every field of the output is constant in space, or much closer to that than in the baseline.

    Formula: let s = 1 - dc_fraction be the share of energy that is not in the means of the fields. One of
        (1) s <= `least_structure` (1e-8);
        (2) constant_channel_fraction = 1;
        (3) with a baseline: s <= `of_baseline` (0.1) times its value in the baseline. This is a warning, (1)
            and (2) are errors.
    Default: `least_structure` is 1e-8: fields then differ from their means by 1e-4 of the means. In untrained
        networks, s was at least 1e-5. `of_baseline` is 0.1: s did not fall during healthy training.
    False alarm when: the network is meant to return fields that are constant in space.
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
    message = f"has fields that are {'' if none_left else 'almost '}constant in space"
    if mean is not None:
        message += f" (mean {format_number(mean)})"
    if dc is not None and not none_left and before is not None:
        message += (
            f": {format_number(1 - dc)} of the energy is not in the means of the fields (in the baseline: "
            f"{format_number(before)})"
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
        advice="An earlier layer probably returns fields that are constant in space already: find the first "
        "such layer, then check the learning rate and the loss.",
    )
