"""Finds the first layer that returns NaN or infinity."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_module, healthy_record
from fno_telemetry.diagnosis.places import tensor_places
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord, Value


@rule(
    about="finiteness",
    fires_on=lambda: change_module(
        healthy_record(), "blocks.1.spectral", nan_count=1, finite_fraction=1 - 1 / 131072
    ),
    silent_on=lambda: change_module(healthy_record(), "blocks.1.spectral", max=1e30),
)
def non_finite(record: CaptureRecord, *, most: float = 0) -> Iterator[Symptom]:
    """A layer returns NaN or infinite values.

    The first such layer in execution order is reported as the cause, and later ones as its consequences.

    Formula: nan_count + inf_count > `most` (0).
    Default: `most` is 0, because the next Fourier transform spreads one such value over a whole field.
    False alarm when: a layer returns infinity on purpose, as the masked scores of attention do.
    """
    for place in tensor_places(record):
        nan, infinite = place.value("nan_count") or 0, place.value("inf_count") or 0
        if nan + infinite <= most:
            continue
        evidence: dict[str, Value | str] = {
            "nan_count": nan,
            "inf_count": infinite,
            "count": place.value("count"),
        }
        message = f"contains {format_number(nan)} NaN and {format_number(infinite)} infinite values"
        advice = (
            "This layer probably divides by zero, takes the root or logarithm of a negative number, or "
            "overflows: check what it computes."
        )
        if place.entry.reasons.get("weight_norm") == "a parameter is not finite":
            evidence["weights"] = "a parameter is not finite"
            message += ": its weights are not finite, as after a training that diverged"
            advice = (
                "Weights become so by an optimizer step that was too large, or by a batch that was not "
                "finite: go back to an earlier checkpoint, lower the learning rate, clip gradients, and "
                "check the samples for NaN."
            )
        yield Symptom(
            severity="error",
            place=place,
            message=message,
            evidence=evidence,
            advice=advice,
            explains=Consequences(about=("values", "gradients", "finiteness")),
        )
