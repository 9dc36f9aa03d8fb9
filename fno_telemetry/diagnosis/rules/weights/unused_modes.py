"""Finds weights of modes that the resolution does not have."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Symptom, rule
from fno_telemetry.diagnosis.example_records import change_module, healthy_record
from fno_telemetry.diagnosis.places import module_places, select_defined
from fno_telemetry.diagnosis.wording import format_percent
from fno_telemetry.records import CaptureRecord


@rule(
    about="weights",
    fires_on=lambda: change_module(healthy_record(), "blocks.1.spectral", unused_weight_fraction=0.7),
    silent_on=lambda: change_module(healthy_record(), "blocks.1.spectral", unused_weight_fraction=0.1),
)
def unused_modes(record: CaptureRecord, *, least: float = 0.2) -> Iterator[Symptom]:
    """Some weights of a spectral layer belong to modes that its input cannot have at this resolution.

    Formula: unused_weight_fraction >= `least` (0.2).
    Default: `least` is 0.2. The finding is only a note: the result is right, but memory and parameters are
        wasted. The coarse levels of U-shaped networks often have unused weights by default.
    False alarm when: the network will be used at a higher resolution too.
    """
    for place, unused in select_defined(module_places(record), "unused_weight_fraction"):
        if unused >= least:
            yield Symptom(
                severity="note",
                place=place,
                message=f"never uses {format_percent(unused)} of its weights at this resolution",
                evidence={"unused_weight_fraction": unused, "weight_norm": place.value("weight_norm")},
                advice="The layer has more modes than a grid of this resolution can represent: fewer modes "
                "give the same result with fewer parameters.",
            )
