"""Finds inputs in which some samples are zero everywhere."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_input, healthy_record
from fno_telemetry.diagnosis.places import input_place
from fno_telemetry.diagnosis.wording import format_percent
from fno_telemetry.records import CaptureRecord


@rule(
    about="input",
    fires_on=lambda: change_input(healthy_record(), zero_sample_fraction=0.5),
    silent_on=lambda: change_input(healthy_record(), zero_sample_fraction=0.0),
)
def blank_samples(record: CaptureRecord, *, part: float = 0.05) -> Iterator[Symptom]:
    """Some samples of the model's input are zero everywhere.

    Formula: `part` (0.05) <= zero_sample_fraction < 1. An input of zeros alone is for `bad_input`.
    Default: `part` is 0.05, because a few empty fields among many are data.
    False alarm when: an empty field is a sample like others, such as a scene without objects.
    """
    place = input_place(record)
    share = place.value("zero_sample_fraction") if place is not None else None
    if place is None or share is None or not part <= share < 1:
        return
    yield Symptom(
        severity="warning",
        place=place,
        message=f"has blank samples: {format_percent(share)} of the samples are zero everywhere",
        evidence={"zero_sample_fraction": share},
        advice="The loader probably returns zeros where a file, a frame or a time step is missing: leave "
        "these samples out, and check how the data files were read.",
        confirm="`(x == 0).flatten(1).all(1)` names the samples: look whether their targets are zero too.",
        explains=Consequences(about=("accuracy",)),
    )
