"""Finds layers that return nothing."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_module, healthy_record
from fno_telemetry.diagnosis.places import medians_before, select_defined, tensor_places
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord


@rule(
    about="values",
    fires_on=lambda: change_module(healthy_record(), "blocks.1.local", rms=0.0),
    silent_on=lambda: change_module(healthy_record(), "blocks.1.local", rms=1e-5),
)
def dead_layer(
    record: CaptureRecord, *, near_zero: float = 1e-6, ordinary: float = 1e-3
) -> Iterator[Symptom]:
    """A layer returns zeros, or almost nothing compared with the rest of the network.

    Formula: rms <= near_zero times the median rms of the input and of all layers before it, and rms <=
    ordinary.
    Default: near_zero 1e-6: in healthy networks, untrained or trained, no layer was below 0.03 of the layers
    before it, and float32 has seven digits, so adding such a layer changes nothing. ordinary 1e-3: after a
    norm values are near 1, however large the input of the norm was.
    Wrong when: a layer starts at zero on purpose and has not been trained yet.
    """
    found = select_defined(tensor_places(record), "rms")
    for (place, rms), usual in zip(found, medians_before([rms for _, rms in found]), strict=True):
        if place.name == "input" or rms > min(near_zero * (usual or 0.0), ordinary):
            continue
        message = "returns zero everywhere"
        if rms != 0:
            message = f"returns almost nothing: rms {format_number(rms)}"
            message += "" if usual is None else f", the median before it is {format_number(usual)}"
        norm = place.value("weight_norm")
        advice = "Its input is probably zero, or negative before a rectifier: check the layer before it."
        if norm is not None:
            advice = (
                "Its weights were probably shrunk by weight decay, broken by a step that was too large, or "
                "start at zero: check them."
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
