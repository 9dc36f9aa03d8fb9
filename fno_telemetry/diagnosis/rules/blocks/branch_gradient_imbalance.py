"""Finds blocks in which only one branch is trained."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_block, healthy_record
from fno_telemetry.diagnosis.places import block_places, find_counterpart, median_of_others, select_defined
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord

_STATISTIC = "spectral_local_gradient_ratio"


@rule(
    about="gradients",
    fires_on=lambda: change_block(healthy_record(), 1, spectral_local_gradient_ratio=0.01),
    silent_on=lambda: change_block(healthy_record(), 1, spectral_local_gradient_ratio=0.1),
)
def branch_gradient_imbalance(
    record: CaptureRecord,
    *,
    baseline: CaptureRecord | None = None,
    of_siblings: float = 50,
    of_baseline: float = 20,
    most: float = 1e5,
) -> Iterator[Symptom]:
    """One branch of a block gets nearly all of the gradient.

    The rule works only if the capture was made with `loss`.

    Formula: let q be spectral_local_gradient_ratio = (gradient norm of the spectral weights) / (gradient norm
        of the local weights). One of
        (1) q is larger or smaller than the median q of the other blocks by a factor of `of_siblings` (50) or
            more;
        (2) if the baseline contains the block: q is larger or smaller than its value in the baseline by a
            factor of `of_baseline` (20) or more;
        (3) q >= `most` (1e5) or q <= 1 / `most`.
    Default: `of_siblings` is 50, `of_baseline` is 20 and `most` is 1e5. In healthy blocks, q was 0.1 to 9,
        and within a factor of 5 of the other blocks.
    False alarm when: blocks are meant to differ, as between the levels of a U-shaped network.
    """
    found = select_defined(block_places(record), _STATISTIC)
    ratios = [ratio for _, ratio in found]
    for index, (place, ratio) in enumerate(found):
        known = find_counterpart(place, baseline, block_places)
        before = known.value(_STATISTIC) if known is not None else None
        low, high = (median_of_others(ratios, index, high=one) for one in (False, True))
        usual = low if low is not None and ratio < low else high
        limits = ((1.0, most), (usual, of_siblings), (before, of_baseline))
        if any(other and not other / factor < ratio < other * factor for other, factor in limits):
            weaker = "spectral" if ratio < (usual or before or 1.0) else "local"
            expected = [] if usual is None else [f"median of the other blocks: {format_number(usual)}"]
            expected += [] if before is None else [f"in the baseline: {format_number(before)}"]
            message = f"has a {weaker} branch that is hardly trained: the ratio of spectral to local "
            message += f"gradient norms is {format_number(ratio)}"
            message += f" ({'; '.join(expected)})" if expected else ""
            yield Symptom(
                severity="warning",
                place=place,
                message=message,
                evidence={_STATISTIC: ratio, "of_the_other_blocks": usual, "of_the_baseline": before},
                explains=Consequences(rules=("stalled_update", "vanishing_gradient")),
                advice="The two branches are probably scaled differently: give the weights of the "
                f"{weaker} branch a learning rate of their own, or scale both branches in the same way.",
            )
