"""Blocks of which one branch alone is trained."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Symptom
from fno_telemetry.diagnosis.places import block_places, counterpart, others, select_defined
from fno_telemetry.diagnosis.wording import digits
from fno_telemetry.records import CaptureRecord

_STATISTIC = "spectral_local_gradient_ratio"


def branch_gradient_imbalance(
    record: CaptureRecord,
    *,
    baseline: CaptureRecord | None = None,
    of_siblings: float = 50,
    of_baseline: float = 20,
    most: float = 1e5,
) -> Iterator[Symptom]:
    """One branch of a block gets nearly all of the gradient; needs --loss.

    Formula: spectral_local_gradient_ratio, ||g|| of the spectral over that of the local weights, of_siblings
    times above or below the median of the other blocks, or of_baseline times the baseline's, or above most or
    below 1 / most.
    Default: 50, 20 and 1e5; healthy blocks were within a factor of 5 of the others, from 0.1 to 9.
    Wrong when: blocks are meant to differ, as between the levels of a U-shaped network.
    """
    found = select_defined(block_places(record), _STATISTIC)
    ratios = [ratio for _, ratio in found]
    for index, (place, ratio) in enumerate(found):
        known = counterpart(place, baseline, block_places)
        before = known.value(_STATISTIC) if known is not None else None
        usual = others(ratios, index)
        limits = ((1.0, most), (usual, of_siblings), (before, of_baseline))
        if any(other and not other / factor < ratio < other * factor for other, factor in limits):
            weaker = "spectral" if ratio < (usual or before or 1.0) else "local"
            yield Symptom(
                severity="warning",
                place=place,
                message=f"hardly trains its {weaker} branch: gradients spectral / local {digits(ratio)}",
                evidence={_STATISTIC: ratio, "of_the_other_blocks": usual, "of_the_baseline": before},
                explains=frozenset({"stalled_update", "vanishing_gradient"}),
                advice=f"Give the {weaker} weights a rate of their own, or scale the branches alike.",
            )
