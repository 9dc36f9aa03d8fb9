"""Layers that return nothing."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import OF_GRADIENTS, OF_VALUES, Symptom
from fno_telemetry.diagnosis.places import medians_before, select_defined, tensor_places
from fno_telemetry.diagnosis.wording import digits
from fno_telemetry.records import CaptureRecord


def dead_layer(
    record: CaptureRecord, *, near_zero: float = 1e-6, ordinary: float = 1e-3
) -> Iterator[Symptom]:
    """A layer returns zeros, or next to nothing beside the rest of the network.

    Formula: rms <= near_zero times the median rms of the input and of all layers before it, and <=
    ordinary.
    Default: near_zero 1e-6: in healthy networks, made or trained, no layer was below 0.03 of what came
    before, and float32 has seven digits, so that a sum with such a layer is not changed by it. ordinary
    1e-3: behind a norm values are near 1, however large what went in was.
    Wrong when: a layer starts at zero on purpose and has not been trained yet.
    """
    found = select_defined(tensor_places(record), "rms")
    for (place, rms), usual in zip(found, medians_before([rms for _, rms in found]), strict=True):
        if place.name == "input" or rms > min(near_zero * (usual or 0.0), ordinary):
            continue
        nothing = "zero everywhere" if rms == 0 else f"next to nothing (rms {digits(rms)})"
        norm = place.value("weight_norm")
        advice = "Its input is zero, or negative everywhere before a rectifier: look at the layer before."
        if norm is not None:
            advice = (
                "Look at its weights: a decay too strong, a rate that threw them away, or a start at zero."
            )
        yield Symptom(
            severity="error",
            place=place,
            message=f"returns {nothing}",
            evidence={"rms": rms, "median_before": usual}
            | ({"weight_norm": norm} if norm is not None else {}),
            advice=advice,
            explains=OF_VALUES | OF_GRADIENTS,
        )
