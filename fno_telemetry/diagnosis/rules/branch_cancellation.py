"""Finds blocks whose branches cancel."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_block, healthy_record
from fno_telemetry.diagnosis.places import block_places, select_defined
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord


@rule(
    about="values",
    fires_on=lambda: change_block(healthy_record(), 1, branch_cosine=-0.99, branch_coherence=0.05),
    silent_on=lambda: change_block(healthy_record(), 1, branch_cosine=-0.99, branch_coherence=0.5),
)
def branch_cancellation(
    record: CaptureRecord, *, cosine: float = -0.9, coherence: float = 0.3
) -> Iterator[Symptom]:
    """The two branches of a block are nearly opposite, so that their sum is far smaller than either.

    Formula: branch_cosine <= cosine and branch_coherence <= coherence; the coherence is the norm of the sum
    over the sum of the norms, without the mean of each field.
    Default: cosine -0.9 and coherence 0.3. Healthy networks had cosines above -0.25 and coherences above
    0.65; independent branches of equal size have 0 and 0.71.
    Wrong when: a block is meant to subtract, as high-pass filters do.
    """
    for place, value in select_defined(block_places(record), "branch_cosine"):
        left = place.value("branch_coherence")
        if value <= cosine and left is not None and left <= coherence:
            yield Symptom(
                severity="warning",
                place=place,
                message=f"adds two branches that cancel: {format_number(left)} of their size is left, "
                f"expected more than {format_number(coherence)}",
                evidence={"branch_cosine": value, "branch_coherence": left},
                explains=Consequences(about=("values",)),
                advice="One branch undoes the other, often because the learning rate is too high: lower "
                "it, or normalise before the sum.",
            )
