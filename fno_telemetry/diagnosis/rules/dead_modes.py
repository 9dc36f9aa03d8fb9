"""Modes without weights."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Symptom
from fno_telemetry.diagnosis.places import module_places, select_defined
from fno_telemetry.diagnosis.wording import percent
from fno_telemetry.records import CaptureRecord


def dead_modes(record: CaptureRecord, *, least: float = 0.01) -> Iterator[Symptom]:
    """Some modes of a spectral layer have no weights to speak of: these frequencies do not pass it.

    Formula: dead_mode_fraction >= least; a mode is dead when its weights' energy is at most 1e-12 of the
    strongest mode's.
    Default: 0.01. No mode of a healthy network, made or trained, was dead.
    Wrong when: modes are switched on in the course of training, or were pruned.
    """
    for place, dead in select_defined(module_places(record), "dead_mode_fraction"):
        if dead >= least:
            yield Symptom(
                severity="warning",
                place=place,
                message=f"has {percent(dead)} dead modes",
                evidence={"dead_mode_fraction": dead, "effective_modes": place.value("effective_modes")},
                advice="Look at the decay, and at what was loaded: fewer modes leave the rest empty.",
                explains=frozenset({"high_frequency_loss", "one_sided_spectrum"}),
            )
