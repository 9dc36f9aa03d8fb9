"""NaN and infinity: where they come from first."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import OF_GRADIENTS, OF_VALUES, Symptom
from fno_telemetry.diagnosis.places import tensor_places
from fno_telemetry.diagnosis.wording import digits
from fno_telemetry.records import CaptureRecord, Value


def non_finite(record: CaptureRecord, *, most: float = 0) -> Iterator[Symptom]:
    """A layer returns NaN or infinity; the first one in execution order is the cause of the others.

    Formula: nan_count + inf_count > most.
    Default: 0, because one such element spreads over a whole field at the next Fourier transform.
    Wrong when: a layer masks with infinity on purpose, as attention does.
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
        advice = "Look for a division, a root, a logarithm or an overflow in this layer."
        if place.entry.reasons.get("weight_norm") == "a parameter is not finite":
            evidence["weights"] = "a parameter is not finite"
            advice = "Its weights are broken: take an earlier checkpoint, lower the rate, clip gradients."
        yield Symptom(
            severity="error",
            place=place,
            message=f"returns {digits(nan)} NaN and {digits(infinite)} infinite elements",
            evidence=evidence,
            advice=advice,
            explains=OF_VALUES | OF_GRADIENTS | {"non_finite"},
        )
