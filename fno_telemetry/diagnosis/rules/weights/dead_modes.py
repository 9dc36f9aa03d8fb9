"""Finds modes whose weights are almost zero."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_module, healthy_record
from fno_telemetry.diagnosis.places import module_places, select_defined
from fno_telemetry.diagnosis.wording import format_percent
from fno_telemetry.records import CaptureRecord


@rule(
    about="weights",
    fires_on=lambda: change_module(healthy_record(), "blocks.1.spectral", dead_mode_fraction=0.1),
    silent_on=lambda: change_module(healthy_record(), "blocks.1.spectral", dead_mode_fraction=0.001),
)
def dead_modes(record: CaptureRecord, *, least: float = 0.01) -> Iterator[Symptom]:
    """Some modes of a spectral layer have weights that are almost zero, so their frequencies do not pass it.

    Formula: dead_mode_fraction >= `least` (0.01). A mode is dead if the energy of its weights is at most
        1e-12 times that of the strongest mode.
    Default: `least` is 0.01: in healthy networks, untrained or trained, no mode was dead.
    False alarm when: modes are switched on one after another during training, or were pruned.
    """
    for place, dead in select_defined(module_places(record), "dead_mode_fraction"):
        if dead >= least:
            yield Symptom(
                severity="warning",
                place=place,
                message=f"has {format_percent(dead)} dead modes (expected: less than "
                f"{format_percent(least)})",
                evidence={"dead_mode_fraction": dead, "effective_modes": place.value("effective_modes")},
                advice="Weight decay is probably too strong, or a checkpoint with fewer modes was loaded, "
                "which leaves the other modes at zero: check both.",
                explains=Consequences(rules=("high_frequency_loss", "one_sided_spectrum")),
            )
