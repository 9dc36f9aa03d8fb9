"""Finds blocks whose spectral branch adds nothing."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_block, healthy_record
from fno_telemetry.diagnosis.places import block_places, select_defined
from fno_telemetry.diagnosis.wording import format_number, join_names
from fno_telemetry.records import CaptureRecord


@rule(
    about="values",
    fires_on=lambda: change_block(healthy_record(), 1, spectral_share=0.0),
    silent_on=lambda: change_block(healthy_record(), 1, spectral_share=1e-7),
)
def spectral_branch_dead(record: CaptureRecord, *, near_zero: float = 1e-8) -> Iterator[Symptom]:
    """The spectral branch adds (almost) nothing to the local one: the block is a plain convolution.

    Formula: spectral_share <= near_zero, the share of the spectral branch in the energy of the two operands
    of the sum, without the mean of each field.
    Default: near_zero 1e-8, an amplitude ratio of 1e-4. At initialisation libraries differ from 0.001 to 3,
    so no limit near 1 would fit them all.
    Wrong when: a gate starts at zero on purpose and has not been trained yet.
    """
    for place, share in select_defined(block_places(record), "spectral_share"):
        if share <= near_zero:
            yield Symptom(
                severity="error",
                place=place,
                message=f"gets {format_number(share)} of its energy from its spectral branch, expected more "
                f"than {format_number(near_zero)}",
                evidence={"spectral_share": share, "spectral": join_names(place.entry.spectral)},
                advice="The spectral weights, or a norm, gate or scale after them, are probably zero: check "
                "them.",
                explains=Consequences(rules=("input_independent",)),
            )
