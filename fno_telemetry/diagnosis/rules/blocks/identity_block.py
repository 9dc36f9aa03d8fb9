"""Finds residual blocks that do nothing."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Symptom, rule
from fno_telemetry.diagnosis.example_records import change_block, healthy_record
from fno_telemetry.diagnosis.places import block_places, find_counterpart, median_of_others, select_defined
from fno_telemetry.diagnosis.wording import format_percent
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
    """A residual block returns (almost) its input.

    Formula: update_ratio = ‖y - x‖ / ‖x‖, where x is the input and y the output of the block, in the block's
        own precision. One of
        (1) update_ratio = 0, or update_ratio <= `near_zero` (1e-6) in the only block;
        (2) if the baseline contains the block: update_ratio <= `of_baseline` (0.25) times its value in the
            baseline;
        (3) otherwise: update_ratio <= `of_siblings` (0.03) times the median of the other blocks, and <=
            `most` (0.1).
    Default: `near_zero` is 1e-6, the resolution of float32. `of_siblings` is 0.03: in healthy networks, the
        lowest update_ratio was 0.33 times the median of the other blocks. `most` is 0.1: if one block
        explodes, the update_ratio of all others is small compared with it, although they work. `of_baseline`
        is 0.25: during healthy training, no update_ratio fell below 0.64 times its earlier value. Networks
        with LayerScale (a small learned factor per block) start with an update_ratio of 0.001 or 1e-6 in
        every block, which is not reported.
    False alarm when: blocks are meant to change their input by very different amounts.
    """
    found = select_defined(block_places(record), "update_ratio")
    ratios = [ratio for _, ratio in found]
    for index, (place, ratio) in enumerate(found):
        usual = median_of_others(ratios, index, high=False)
        known = find_counterpart(place, baseline, block_places)
        before = known.value("update_ratio") if known is not None else None
        # If the baseline contains the block, only a change counts.
        below_others = before is None and usual is not None and ratio <= min(of_siblings * usual, most)
        below_baseline = before is not None and ratio <= of_baseline * before
        nothing = ratio == 0 or (usual is None and ratio <= near_zero)
        if nothing or below_others or below_baseline:
            change = f"{format_percent(ratio)} of the input's norm"
            message = f"changes its input by only {change}"
            if ratio == 0:
                message = f"returns its input unchanged: the change is {change}"
            if before is not None:
                message += f" (in the baseline: {format_percent(before)})"
            elif usual is not None:
                message += f" (median of the other blocks: {format_percent(usual)})"
            yield Symptom(
                severity="warning",
                place=place,
                message=message,
                evidence={"update_ratio": ratio, "of_the_other_blocks": usual, "of_the_baseline": before},
                advice="Its LayerScale, its gate or the weights of its normalisation layer are probably near "
                "zero, or the block is not trained: check them.",
            )
