"""Residual blocks that do nothing."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Symptom
from fno_telemetry.diagnosis.places import block_places, counterpart, others, select_defined
from fno_telemetry.diagnosis.wording import digits
from fno_telemetry.records import CaptureRecord


def identity_block(
    record: CaptureRecord,
    *,
    baseline: CaptureRecord | None = None,
    near_zero: float = 1e-6,
    of_siblings: float = 0.03,
    most: float = 0.1,
    of_baseline: float = 0.25,
) -> Iterator[Symptom]:
    """A residual block returns what went in.

    Formula: update_ratio, ||y - x|| / ||x|| as it happened in its precision, <= near_zero; or <= of_baseline
    times the same block's in the baseline; or, where no baseline knows the block, <= of_siblings times the
    median of the other blocks and <= most.
    Default: near_zero 1e-6, the resolution of float32; of_siblings 0.03: in healthy networks the lowest was
    0.33 of the median; most 0.1, because beside a loud block all others look idle; of_baseline 0.25: in the
    course of a healthy training none fell below 0.64. An update of 0.001 in every block is how networks with
    a layer scale start.
    Wrong when: blocks are meant to differ in strength.
    """
    found = select_defined(block_places(record), "update_ratio")
    ratios = [ratio for _, ratio in found]
    for index, (place, ratio) in enumerate(found):
        usual = others(ratios, index)
        known = counterpart(place, baseline, block_places)
        before = known.value("update_ratio") if known is not None else None
        # Where the baseline knows the block, only a change counts.
        beside_others = before is None and usual is not None and ratio <= min(of_siblings * usual, most)
        beside_baseline = before is not None and ratio <= of_baseline * before
        if ratio <= near_zero or beside_others or beside_baseline:
            yield Symptom(
                severity="warning",
                place=place,
                message=f"changes its input by {digits(ratio)} of its size only"
                if ratio
                else "returns its input as it is",
                evidence={"update_ratio": ratio, "of_the_other_blocks": usual, "of_the_baseline": before},
                advice="Look at its layer scale, gate or norm, and at whether its weights are trained.",
            )
