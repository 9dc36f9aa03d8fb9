"""Where fine structure is lost."""

from collections.abc import Iterator
from typing import Any

from fno_telemetry.diagnosis.contract import Symptom
from fno_telemetry.diagnosis.places import (
    Place,
    counterpart,
    input_place,
    module_places,
    others,
    output_place,
    select_defined,
)
from fno_telemetry.diagnosis.wording import digits
from fno_telemetry.records import CaptureRecord

_STATISTIC = "high_frequency_fraction"


def high_frequency_loss(
    record: CaptureRecord,
    *,
    baseline: CaptureRecord | None = None,
    near_zero: float = 1e-8,
    of_siblings: float = 0.01,
    of_baseline: float = 0.05,
) -> Iterator[Symptom]:
    """A block, or the output, has lost its high frequencies although the input has some.

    Formula: high_frequency_fraction, the energy above 1/4 cycle per sample, of a block or the output, <=
    of_siblings times the median of the other blocks, or <= of_baseline times the baseline's: a warning; <=
    near_zero: a note. The input's is above near_zero.
    Default: near_zero 1e-8, of_siblings 0.01, of_baseline 0.05. Blocks of healthy networks had 1e-4 and more,
    and at least 0.07 of the median. A smooth output is a note only: the target may be so too.
    Wrong when: blocks are meant to differ, as between the levels of a U-shaped network.
    """
    entered = input_place(record)
    there = entered.value(_STATISTIC) if entered is not None else None
    if there is None or there <= near_zero:
        return
    blocks = select_defined([place for place in module_places(record) if place.role == "block"], _STATISTIC)
    values = [value for _, value in blocks]
    for index, (place, value) in enumerate(blocks):
        yield from _judged(place, value, others(values, index), baseline, near_zero, of_siblings, of_baseline)
    end = output_place(record)
    left = end.value(_STATISTIC) if end is not None else None
    if end is not None and left is not None:
        yield from _judged(end, left, None, baseline, near_zero, of_siblings, of_baseline)


def _judged(
    place: Place[Any],
    value: float,
    usual: float | None,
    baseline: CaptureRecord | None,
    near_zero: float,
    of_siblings: float,
    of_baseline: float,
) -> Iterator[Symptom]:
    known = counterpart(place, baseline, lambda record: [*module_places(record), *_ends(record)])
    before = known.value(_STATISTIC) if known is not None else None
    beside_others = usual is not None and value <= of_siblings * usual
    beside_baseline = before is not None and value <= of_baseline * before
    if value <= near_zero or beside_others or beside_baseline:
        yield Symptom(
            severity="warning" if beside_others or beside_baseline else "note",
            place=place,
            message=f"has lost its high frequencies: {digits(value)} of its energy is above 1/4",
            evidence={_STATISTIC: value, "of_the_other_blocks": usual, "of_the_baseline": before},
            advice="Look at the local branch and the number of modes; a loss on gradients keeps edges.",
            explains=frozenset({"high_frequency_loss"}),
        )


def _ends(record: CaptureRecord) -> list[Place[Any]]:
    end = output_place(record)
    return [end] if end is not None else []
