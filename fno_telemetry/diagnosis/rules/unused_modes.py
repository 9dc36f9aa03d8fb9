"""Weights of modes that the resolution does not have."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Symptom
from fno_telemetry.diagnosis.places import module_places, select_defined
from fno_telemetry.diagnosis.wording import percent
from fno_telemetry.records import CaptureRecord


def unused_modes(record: CaptureRecord, *, least: float = 0.2) -> Iterator[Symptom]:
    """Some of a spectral layer's weights belong to modes that its input can never have at this resolution.

    Formula: unused_weight_fraction >= least.
    Default: 0.2. Only a note: nothing is wrong with the result, but memory and parameters are spent; the
    coarse levels of U-shaped networks often have it by default.
    Wrong when: the network is to be used at a higher resolution too.
    """
    for place, unused in select_defined(module_places(record), "unused_weight_fraction"):
        if unused >= least:
            yield Symptom(
                severity="note",
                place=place,
                message=f"never uses {percent(unused)} of its weights at this resolution",
                evidence={"unused_weight_fraction": unused, "weight_norm": place.value("weight_norm")},
                advice="Fewer modes at this level give the same result with fewer parameters.",
            )
