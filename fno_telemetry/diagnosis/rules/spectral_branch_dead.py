"""Blocks whose spectral branch adds nothing."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Symptom
from fno_telemetry.diagnosis.places import block_places, select_defined
from fno_telemetry.diagnosis.wording import digits, listed
from fno_telemetry.records import CaptureRecord


def spectral_branch_dead(record: CaptureRecord, *, near_zero: float = 1e-8) -> Iterator[Symptom]:
    """The spectral branch is (nearly) nothing where it meets the local one: the block is a plain convolution.

    Formula: spectral_share <= near_zero, the share of the energy of the two operands of the sum, the means of
    fields left out.
    Default: 1e-8, an amplitude ratio of 1e-4. At initialisation libraries differ from 0.001 to 3, so no limit
    near 1 would fit them all.
    Wrong when: a gate starts at zero on purpose and has not been trained yet.
    """
    for place, share in select_defined(block_places(record), "spectral_share"):
        if share <= near_zero:
            yield Symptom(
                severity="error",
                place=place,
                message=f"gets nothing from its spectral branch (share {digits(share)})",
                evidence={"spectral_share": share, "spectral": listed(place.entry.spectral)},
                advice="Look at the spectral weights, and at a norm, gate or scale between branch and sum.",
                explains=frozenset({"input_independent"}),
            )
