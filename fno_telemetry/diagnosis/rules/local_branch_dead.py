"""Blocks whose local branch adds nothing."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Symptom
from fno_telemetry.diagnosis.sites import block_sites, stated
from fno_telemetry.diagnosis.wording import digits, listed
from fno_telemetry.records import CaptureRecord


def local_branch_dead(record: CaptureRecord, *, near_zero: float = 1e-8) -> Iterator[Symptom]:
    """The local branch is (nearly) nothing where it meets the spectral one: what the modes miss is lost.

    Formula: 1 - spectral_share <= near_zero, the share of the energy of the two operands of the sum, the
    means of fields left out.
    Default: 1e-8, an amplitude ratio of 1e-4: see spectral_branch_dead.
    Wrong when: the branch starts at zero on purpose and has not been trained yet.
    """
    for site, share in stated(block_sites(record), "spectral_share"):
        if 1 - share <= near_zero:
            ratio = site.value("spectral_local_ratio")
            yield Symptom(
                severity="warning",
                site=site,
                message=f"gets nothing from its local branch (share {digits(1 - share)})",
                evidence={
                    "spectral_share": share,
                    "spectral_local_ratio": ratio,
                    "local": listed(site.entry.local),
                },
                advice="Look at the local weights; without them only the kept modes pass this block.",
                explains=frozenset({"high_frequency_loss"}),
            )
