"""Finds blocks whose local branch adds nothing."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_block, healthy_record
from fno_telemetry.diagnosis.places import block_places, find_counterpart, select_defined
from fno_telemetry.diagnosis.wording import format_number, join_names
from fno_telemetry.records import CaptureRecord


@rule(
    about="values",
    fires_on=lambda: change_block(healthy_record(), 1, spectral_share=1.0),
    silent_on=lambda: change_block(healthy_record(), 1, spectral_share=1 - 1e-7),
)
def local_branch_dead(
    record: CaptureRecord,
    *,
    baseline: CaptureRecord | None = None,
    near_zero: float = 1e-8,
    of_baseline: float = 6,
) -> Iterator[Symptom]:
    """The local branch adds (almost) nothing to the spectral one: what the modes leave out is lost.

    Formula: 1 - spectral_share <= near_zero, the share of the local branch in the energy of the two operands
    of the sum, without the mean of each field; or spectral_local_ratio >= of_baseline times that of the
    baseline.
    Default: near_zero 1e-8, an amplitude ratio of 1e-4: see spectral_branch_dead. of_baseline 6: during
    healthy training the ratio grew by 3.7 at most, from an untrained network on.
    Wrong when: the branch starts at zero on purpose and has not been trained yet.
    """
    for place, share in select_defined(block_places(record), "spectral_share"):
        ratio = place.value("spectral_local_ratio")
        known = find_counterpart(place, baseline, block_places)
        before = known.value("spectral_local_ratio") if known is not None else None
        fell = ratio is not None and bool(before) and ratio >= of_baseline * (before or 0.0)
        if 1 - share <= near_zero or fell:
            expected = f", expected more than {format_number(near_zero)}"
            if fell and ratio is not None and before is not None:
                expected = (
                    f"; the ratio of spectral to local is {format_number(ratio)}, in the baseline "
                    f"{format_number(before)}"
                )
            yield Symptom(
                severity="warning",
                place=place,
                message=f"gets {format_number(1 - share)} of its energy from its local branch{expected}",
                evidence={
                    "spectral_share": share,
                    "spectral_local_ratio": ratio,
                    "of_the_baseline": before,
                    "local": join_names(place.entry.local),
                },
                advice="The local weights are probably zero or very small: check them; without them only the "
                "kept modes pass this block.",
                explains=Consequences(rules=("high_frequency_loss",)),
            )
