"""Blocks whose branches cancel."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import OF_VALUES, Symptom
from fno_telemetry.diagnosis.places import block_places, select_defined
from fno_telemetry.diagnosis.wording import digits
from fno_telemetry.records import CaptureRecord


def branch_cancellation(
    record: CaptureRecord, *, cosine: float = -0.9, coherence: float = 0.3
) -> Iterator[Symptom]:
    """The two branches of a block are nearly opposite, so that their sum is far smaller than either.

    Formula: branch_cosine <= cosine and branch_coherence <= coherence, the norm of the sum over the sum of
    the norms; the means of fields left out.
    Default: -0.9 and 0.3. Healthy networks had cosines above -0.25 and coherences above 0.65; independent
    branches of equal size have 0 and 0.71.
    Wrong when: a block is to subtract, as high-pass filters do.
    """
    for place, value in select_defined(block_places(record), "branch_cosine"):
        left = place.value("branch_coherence")
        if value <= cosine and left is not None and left <= coherence:
            yield Symptom(
                severity="warning",
                place=place,
                message=f"adds branches that cancel: {digits(left)} of them is left",
                evidence={"branch_cosine": value, "branch_coherence": left},
                explains=OF_VALUES,
                advice="One branch undoes the other: lower the rate, or normalise before the sum.",
            )
