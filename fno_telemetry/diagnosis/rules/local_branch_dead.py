"""Blocks whose local branch adds nothing."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Symptom
from fno_telemetry.diagnosis.places import block_places, counterpart, select_defined
from fno_telemetry.diagnosis.wording import digits, listed
from fno_telemetry.records import CaptureRecord


def local_branch_dead(
    record: CaptureRecord,
    *,
    baseline: CaptureRecord | None = None,
    near_zero: float = 1e-8,
    of_baseline: float = 6,
) -> Iterator[Symptom]:
    """The local branch is (nearly) nothing where it meets the spectral one: what the modes miss is lost.

    Formula: 1 - spectral_share <= near_zero, the share of the energy of the two operands of the sum, the
    means of fields left out; or spectral_local_ratio >= of_baseline times the baseline's.
    Default: near_zero 1e-8, an amplitude ratio of 1e-4: see spectral_branch_dead. of_baseline 6: in the
    course of a healthy training the ratio grew by 3.7 at most, from an untrained network on.
    Wrong when: the branch starts at zero on purpose and has not been trained yet.
    """
    for place, share in select_defined(block_places(record), "spectral_share"):
        ratio = place.value("spectral_local_ratio")
        known = counterpart(place, baseline, block_places)
        before = known.value("spectral_local_ratio") if known is not None else None
        fell = ratio is not None and bool(before) and ratio >= of_baseline * (before or 0.0)
        if 1 - share <= near_zero or fell:
            yield Symptom(
                severity="warning",
                place=place,
                message=f"gets next to nothing from its local branch (share {digits(1 - share)})",
                evidence={
                    "spectral_share": share,
                    "spectral_local_ratio": ratio,
                    "of_the_baseline": before,
                    "local": listed(place.entry.local),
                },
                advice="Look at the local weights; without them only the kept modes pass this block.",
                explains=frozenset({"high_frequency_loss"}),
            )
