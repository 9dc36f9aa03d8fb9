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
    """One branch of a block gets nearly all of the gradient; needs a capture with a loss.

    Formula: spectral_local_gradient_ratio, ||g|| of the spectral over that of the local weights, is
    of_siblings times above or below the median of the other blocks, or of_baseline times above or below that
    of the baseline, or above most or below 1 / most.
    Default: of_siblings 50, of_baseline 20 and most 1e5; healthy blocks were within a factor of 5 of the
    others, from 0.1 to 9.
    Wrong when: blocks are meant to differ, as between the levels of a U-shaped network.
    """
    found = select_defined(block_places(record), _STATISTIC)
    ratios = [ratio for _, ratio in found]
    for index, (place, ratio) in enumerate(found):
        known = find_counterpart(place, baseline, block_places)
        before = known.value(_STATISTIC) if known is not None else None
        usual = median_of_others(ratios, index)
        limits = ((1.0, most), (usual, of_siblings), (before, of_baseline))
        if any(other and not other / factor < ratio < other * factor for other, factor in limits):
            weaker = "spectral" if ratio < (usual or before or 1.0) else "local"
            seen = [f"the ratio of spectral to local gradients is {format_number(ratio)}"]
            seen += [] if usual is None else [f"in the other blocks {format_number(usual)}"]
            seen += [] if before is None else [f"in the baseline {format_number(before)}"]
            yield Symptom(
                severity="warning",
                place=place,
                message=f"hardly trains its {weaker} branch: {', '.join(seen)}",
                evidence={_STATISTIC: ratio, "of_the_other_blocks": usual, "of_the_baseline": before},
                explains=Consequences(rules=("stalled_update", "vanishing_gradient")),
                advice=f"The branches are probably scaled differently: give the {weaker} weights a learning "
                "rate of their own, or scale both branches alike.",
            )
