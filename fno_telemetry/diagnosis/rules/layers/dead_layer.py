"""Finds layers that return nothing."""

from collections.abc import Iterator
from typing import Any

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_module, healthy_record
from fno_telemetry.diagnosis.places import Place, medians_before, select_defined, tensor_places
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord


@rule(
    about="values",
    fires_on=lambda: change_module(healthy_record(), "blocks.1.local", rms=0.0, weight_norm=0.0),
    silent_on=lambda: change_module(healthy_record(), "blocks.1.local", rms=1e-5),
)
def dead_layer(
    record: CaptureRecord, *, near_zero: float = 1e-6, ordinary: float = 1e-3
) -> Iterator[Symptom]:
    """A layer returns zeros, or values that are almost zero compared with those of the layers before it.

    Formula: rms <= `near_zero` (1e-6) · m, rms <= `ordinary` (0.001), and rms <= `near_zero` times the rms of
        its own input, which is not zero; m is the median rms of the model's input and of all layers before
        the layer.
    Default: `near_zero` is 1e-6: in healthy networks, untrained or trained, no layer had an rms below 0.03 ·
        m. float32 has seven digits, so adding the output of such a layer to another one changes nothing.
        `ordinary` is 0.001: after a normalisation layer, values are near 1, whatever the scale of its input.
    False alarm when: a layer starts at zero on purpose and has not been trained yet.
    """
    found = select_defined(tensor_places(record), "rms")
    for (place, rms), usual in zip(found, medians_before([rms for _, rms in found]), strict=True):
        if place.name == "input" or rms > min(near_zero * (usual or 0.0), ordinary):
            continue
        if _is_given_as_little(place, rms, near_zero):
            continue
        message = "returns zero everywhere"
        if rms != 0:
            message = f"returns almost zero: its rms is {format_number(rms)}"
            if usual is not None:
                message += f" (median of the layers before it: {format_number(usual)})"
        norm = place.value("weight_norm")
        advice = "Its input is probably zero, or negative and followed by a ReLU: check the layer before it."
        if norm is not None:
            advice = (
                "Its weights are probably zero or almost zero, because of weight decay, an optimizer step "
                "that was too large, or their initialisation: check them."
            )
        yield Symptom(
            severity="error",
            place=place,
            message=message,
            evidence={"rms": rms, "median_before": usual}
            | ({"weight_norm": norm} if norm is not None else {}),
            advice=advice,
            explains=Consequences(about=("values", "gradients")),
        )


def _is_given_as_little(place: Place[Any], rms: float, near_zero: float) -> bool:
    """Whether the input of a layer is as small as its output; an unknown one counts unless rms is 0."""
    if "input_rms" not in place.entry.stats:
        return False
    entered = place.value("input_rms")
    if entered is None:
        return rms > 0
    return entered == 0 or rms > near_zero * entered
