"""Blocks whose spectral branch is far weaker than it is elsewhere."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Symptom
from fno_telemetry.diagnosis.places import block_places, counterpart, others, select_defined
from fno_telemetry.diagnosis.wording import digits
from fno_telemetry.records import CaptureRecord


def spectral_branch_weak(
    record: CaptureRecord,
    *,
    baseline: CaptureRecord | None = None,
    of_siblings: float = 0.1,
    of_baseline: float = 0.25,
    dead: float = 1e-4,
) -> Iterator[Symptom]:
    """The spectral branch of a block is far weaker beside the local one than in the other blocks, or before.

    Formula: spectral_local_ratio <= of_siblings times the median of the other blocks, or <= of_baseline
    times the same block's in the baseline; above dead, below which the branch is dead.
    Default: of_siblings 0.1: in healthy networks of six families the lowest was 0.3 of the median.
    of_baseline 0.25: in the course of a healthy training none fell below 0.29 of before. There is no
    absolute limit: libraries start from 0.001 to 3.
    Wrong when: blocks are meant to differ, as between the levels of a U-shaped network.
    """
    found = select_defined(block_places(record), "spectral_local_ratio")
    ratios = [ratio for _, ratio in found]
    for index, (place, ratio) in enumerate(found):
        usual = others(ratios, index)
        known = counterpart(place, baseline, block_places)
        before = known.value("spectral_local_ratio") if known is not None else None
        evidence = {"spectral_local_ratio": ratio}
        if before is None and usual is not None and dead < ratio <= of_siblings * usual:
            evidence["of_the_other_blocks"] = usual
        if before is not None and dead < ratio <= of_baseline * before:
            evidence["of_the_baseline"] = before
        if len(evidence) > 1:
            against = " and ".join(
                f"{digits(value)} {name.replace('_', ' ')}" for name, value in list(evidence.items())[1:]
            )
            yield Symptom(
                severity="warning",
                place=place,
                message=f"hardly uses its spectral branch: ratio {digits(ratio)}, beside {against}",
                evidence=evidence,
                advice="Look at the spectral weights of this block, their initialisation and their rate.",
            )
