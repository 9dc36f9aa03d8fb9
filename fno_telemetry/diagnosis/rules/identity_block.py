"""Finds residual blocks that do nothing."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Symptom, rule
from fno_telemetry.diagnosis.example_records import change_block, healthy_record
from fno_telemetry.diagnosis.places import block_places, find_counterpart, median_of_others, select_defined
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord


@rule(
    about="values",
    fires_on=lambda: change_block(healthy_record(), 1, update_ratio=0.01),
    silent_on=lambda: change_block(healthy_record(), 1, update_ratio=0.02),
)
def identity_block(
    record: CaptureRecord,
    *,
    baseline: CaptureRecord | None = None,
    near_zero: float = 1e-6,
    of_siblings: float = 0.03,
    most: float = 0.1,
    of_baseline: float = 0.25,
) -> Iterator[Symptom]:
    """A residual block returns its input.

    Formula: update_ratio, ||y - x|| / ||x|| in the precision of the block, <= near_zero; or <= of_baseline
    times that of the same block in the baseline; or, where no baseline knows the block, <= of_siblings times
    the median of the other blocks and <= most.
    Default: near_zero 1e-6, the resolution of float32; of_siblings 0.03: in healthy networks the lowest was
    0.33 of the median; most 0.1, because next to a block that explodes all others look idle; of_baseline
    0.25: during healthy training none fell below 0.64. An update of 0.001 in every block is how networks with
    a layer scale start.
    Wrong when: blocks are meant to differ in strength.
    """
    found = select_defined(block_places(record), "update_ratio")
    ratios = [ratio for _, ratio in found]
    for index, (place, ratio) in enumerate(found):
        usual = median_of_others(ratios, index)
        known = find_counterpart(place, baseline, block_places)
        before = known.value("update_ratio") if known is not None else None
        # Where the baseline knows the block, only a change counts.
        below_others = before is None and usual is not None and ratio <= min(of_siblings * usual, most)
        below_baseline = before is not None and ratio <= of_baseline * before
        if ratio <= near_zero or below_others or below_baseline:
            message = "returns its input unchanged"
            if ratio:
                message = f"changes its input by only {format_number(ratio)} of its size"
            if before is not None:
                message += f"; in the baseline it changed it by {format_number(before)}"
            elif usual is not None:
                message += f"; the other blocks change theirs by {format_number(usual)}"
            yield Symptom(
                severity="warning",
                place=place,
                message=message,
                evidence={"update_ratio": ratio, "of_the_other_blocks": usual, "of_the_baseline": before},
                advice="Its layer scale, gate or norm is probably near zero, or its weights are not trained: "
                "check them.",
            )
