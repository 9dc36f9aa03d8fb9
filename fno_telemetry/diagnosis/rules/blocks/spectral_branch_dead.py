"""Finds blocks whose spectral branch adds nothing."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_block, healthy_record
from fno_telemetry.diagnosis.places import block_places, select_defined
from fno_telemetry.diagnosis.wording import format_number, join_names
from fno_telemetry.records import CaptureRecord


@rule(
    about="values",
    fires_on=lambda: change_block(healthy_record(), 1, spectral_share=0.0, spectral_local_ratio=0.0),
    silent_on=lambda: change_block(healthy_record(), 1, spectral_share=1e-7, spectral_local_ratio=3.2e-4),
)
def spectral_branch_dead(record: CaptureRecord, *, near_zero: float = 1e-8) -> Iterator[Symptom]:
    """The spectral branch adds (almost) nothing to the local one; the block acts like a plain convolution.

    Formula: spectral_share = (energy of the spectral branch) / (energy of both branches) <= `near_zero`
        (1e-8). The branches are the two operands of the sum (the mean of each field is subtracted first).
    Default: `near_zero` is 1e-8, which is a ratio of 1e-4 between the rms of the spectral and of the local
        branch. At initialisation, this ratio is 0.001 to 3, depending on the library, so no limit near 1
        would fit all libraries.
    False alarm when: the branch has a gate that starts at zero on purpose and has not been trained yet.
    """
    for place, share in select_defined(block_places(record), "spectral_share"):
        if share <= near_zero:
            yield Symptom(
                severity="error",
                place=place,
                message="has a dead spectral branch: the energy of the branch, divided by that of both "
                f"branches, is {format_number(share)} (expected: more than {format_number(near_zero)})",
                evidence={"spectral_share": share, "spectral": join_names(place.entry.spectral)},
                advice="The weights of the branch, or a normalisation layer, gate or scaling factor after "
                "them, are probably zero: check them.",
                explains=Consequences(rules=("input_independent",)),
            )
