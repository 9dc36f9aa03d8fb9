"""Finds blocks whose branches cancel."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_block, healthy_record
from fno_telemetry.diagnosis.places import block_places, select_defined
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord


@rule(
    about="values",
    fires_on=lambda: change_block(healthy_record(), 1, branch_cosine=-0.995, branch_coherence=0.05),
    silent_on=lambda: change_block(healthy_record(), 1, branch_cosine=-0.99, branch_coherence=0.5),
)
def branch_cancellation(
    record: CaptureRecord, *, cosine: float = -0.9, coherence: float = 0.3
) -> Iterator[Symptom]:
    """The two branches of a block nearly cancel each other: their sum is far smaller than either branch.

    Formula: for the two operands a and b of the sum (the mean of each field is subtracted first), both
        (1) branch_cosine, the cosine of the angle between a and b, is <= `cosine` (-0.9); and
        (2) branch_coherence = ‖a + b‖ / (‖a‖ + ‖b‖) is <= `coherence` (0.3).
    Default: `cosine` is -0.9 and `coherence` is 0.3. Healthy networks had cosines above -0.25 and coherences
        above 0.65. Independent branches of equal norm have a cosine of 0 and a coherence of 0.71.
    False alarm when: the branches of a block are meant to be subtracted, as in a high-pass filter.
    """
    for place, value in select_defined(block_places(record), "branch_cosine"):
        left = place.value("branch_coherence")
        if value <= cosine and left is not None and left <= coherence:
            yield Symptom(
                severity="warning",
                place=place,
                message="adds two branches that cancel: the norm of the sum is "
                f"{format_number(left)} times the sum of their norms (expected: more than "
                f"{format_number(coherence)})",
                evidence={"branch_cosine": value, "branch_coherence": left},
                explains=Consequences(about=("values",)),
                advice="One branch removes what the other one adds, often because the learning rate is too "
                "high: lower it, or normalise both branches before the sum.",
            )
