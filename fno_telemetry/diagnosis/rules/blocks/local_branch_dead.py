"""Finds blocks whose local branch adds nothing, or far less than in the baseline."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_block, healthy_record
from fno_telemetry.diagnosis.places import block_places, find_counterpart, select_defined
from fno_telemetry.diagnosis.wording import format_number, join_names
from fno_telemetry.records import CaptureRecord


@rule(
    about="values",
    fires_on=lambda: change_block(healthy_record(), 1, spectral_share=1.0, spectral_local_ratio=None),
    silent_on=lambda: change_block(healthy_record(), 1, spectral_share=1 - 1e-7, spectral_local_ratio=3200.0),
)
def local_branch_dead(
    record: CaptureRecord,
    *,
    baseline: CaptureRecord | None = None,
    near_zero: float = 1e-8,
    of_baseline: float = 6,
    minor: float = 0.1,
) -> Iterator[Symptom]:
    """The local branch adds (almost) nothing to the spectral one, or far less than in the baseline.

    Then only the frequencies of the kept modes pass the block.

    Formula: the branches are the two operands of the sum (the mean of each field is subtracted first). One of
        (1) 1 - spectral_share = (energy of the local branch) / (energy of both branches) <= `near_zero`
            (1e-8);
        (2) if the baseline contains the block: spectral_local_ratio = (rms of the spectral branch) / (rms of
            the local branch) >= `of_baseline` (6) times its value in the baseline, and 1 - spectral_share <=
            `minor` (0.1).
    Default: `near_zero` is 1e-8, which is a ratio of 1e-4 between the rms of the local and of the spectral
        branch; see spectral_branch_dead. `of_baseline` is 6: during healthy training, spectral_local_ratio
        grew by at most a factor of 3.7, when the baseline is the untrained network; more, where spectral
        weights start very small, and then the local branch keeps more than a `minor` part, 0.1.
    False alarm when: the branch starts at zero on purpose and has not been trained yet.
    """
    for place, share in select_defined(block_places(record), "spectral_share"):
        ratio = place.value("spectral_local_ratio")
        known = find_counterpart(place, baseline, block_places)
        before = known.value("spectral_local_ratio") if known is not None else None
        grew = ratio is not None and bool(before) and ratio >= of_baseline * (before or 0.0)
        fell = grew and 1 - share <= minor
        if 1 - share <= near_zero or fell:
            energy = "the energy of the branch, divided by that of both branches, is "
            energy += format_number(1 - share)
            message = f"has a dead local branch: {energy} (expected: more than {format_number(near_zero)})"
            if fell and ratio is not None and before is not None:
                message = (
                    f"hardly uses its local branch: {energy}, and the ratio of spectral to local rms is "
                    f"{format_number(ratio)} (in the baseline: {format_number(before)})"
                )
            yield Symptom(
                severity="warning",
                place=place,
                message=message,
                evidence={
                    "spectral_share": share,
                    "spectral_local_ratio": ratio,
                    "of_the_baseline": before,
                    "local": join_names(place.entry.local),
                },
                advice="The weights of the branch are probably zero or very small: check them. Without the "
                "local branch, only the kept modes pass this block.",
                explains=Consequences(rules=("high_frequency_loss",)),
            )
