"""Finds blocks whose spectral branch is far weaker than elsewhere."""

from collections.abc import Iterator

from fno_telemetry.comparison.learning import is_trained
from fno_telemetry.diagnosis.contract import Symptom, rule
from fno_telemetry.diagnosis.example_records import change_block, healthy_record
from fno_telemetry.diagnosis.places import block_places, find_counterpart, median_of_others, select_defined
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord


@rule(
    about="values",
    fires_on=lambda: change_block(healthy_record(), 1, spectral_local_ratio=0.02, spectral_share=4e-4),
    silent_on=lambda: change_block(healthy_record(), 1, spectral_local_ratio=0.5, spectral_share=0.2),
)
def spectral_branch_weak(
    record: CaptureRecord,
    *,
    baseline: CaptureRecord | None = None,
    of_siblings: float = 0.1,
    of_baseline: float = 0.25,
    most: float = 1.0,
    dead: float = 1e-4,
    everywhere: float = 0.02,
) -> Iterator[Symptom]:
    """The spectral branch of a block is far weaker than in the other blocks, or than in the baseline.

    Formula: let r be spectral_local_ratio = (rms of the spectral branch) / (rms of the local branch).
        `dead` (1e-4) < r <= `most` (1), and one of
        (1) if the baseline contains the block: r <= `of_baseline` (0.25) times its value in the baseline;
        (2) otherwise: r <= `of_siblings` (0.1) times the median of the other blocks with as many local
            branches.
        (3) the network is trained for some steps, and r <= `everywhere` (0.02) in this block and all others.
        A block with r <= `dead` is reported by spectral_branch_dead.
    Default: `of_siblings` is 0.1: in healthy networks of six families, the lowest r was 0.3 times the median
        r. `of_baseline` is 0.25: during healthy training, no r fell below 0.29 times its earlier value.
        `dead` is 1e-4, the limit of spectral_branch_dead. `most` is 1: above it, the branch is the stronger
        one. r starts at 0.001 to 3, depending on the library, so that a limit for all holds only once the
        network is trained: `everywhere` is 0.02, where r was 0.3 and more in trained healthy networks.
    False alarm when: blocks are meant to differ, as between the levels of a U-shaped network.
    """
    found = select_defined(block_places(record), "spectral_local_ratio")
    is_weak = is_trained(record) and all(ratio <= everywhere for _, ratio in found)
    for place, ratio in found:
        alike = [
            own
            for other, own in found
            if other is not place and len(other.entry.local) == len(place.entry.local)
        ]
        usual = median_of_others([ratio, *alike], 0, high=False)
        known = find_counterpart(place, baseline, block_places)
        before = known.value("spectral_local_ratio") if known is not None else None
        evidence, expected = {"spectral_local_ratio": ratio}, []
        if before is None and usual is not None and dead < ratio <= min(of_siblings * usual, most):
            evidence["of_the_other_blocks"] = usual
            expected.append(f"median of the other blocks: {format_number(usual)}")
        if before is not None and dead < ratio <= min(of_baseline * before, most):
            evidence["of_the_baseline"] = before
            expected.append(f"in the baseline: {format_number(before)}")
        if is_weak and ratio > dead and not expected:
            expected.append(f"expected after training: more than {format_number(everywhere)}")
        if expected:
            yield Symptom(
                severity="warning",
                place=place,
                message="hardly uses its spectral branch: the ratio of spectral to local rms is "
                f"{format_number(ratio)} ({'; '.join(expected)})",
                evidence=evidence,
                advice="The spectral weights of this block probably start too small, or learn too slowly: "
                "check their initialisation and learning rate.",
            )
