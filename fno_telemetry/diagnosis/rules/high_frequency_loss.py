"""Finds where fine structure is lost."""

from collections.abc import Iterator
from typing import Any

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_module, healthy_record
from fno_telemetry.diagnosis.places import (
    Place,
    find_counterpart,
    input_place,
    median_of_others,
    module_places,
    output_place,
    select_defined,
)
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord

_STATISTIC = "high_frequency_fraction"


@rule(
    about="values",
    fires_on=lambda: change_module(healthy_record(), "blocks.1", high_frequency_fraction=5e-4),
    silent_on=lambda: change_module(healthy_record(), "blocks.1.spectral", high_frequency_fraction=0.0),
)
def high_frequency_loss(
    record: CaptureRecord,
    *,
    baseline: CaptureRecord | None = None,
    near_zero: float = 1e-8,
    of_siblings: float = 0.01,
    of_baseline: float = 0.05,
) -> Iterator[Symptom]:
    """A block, or the output, has lost its high frequencies although the input has some.

    Formula: high_frequency_fraction, the share of energy above 1/4 cycle per grid point, of a block or the
    output: <= of_siblings times the median of the other blocks, or <= of_baseline times that of the
    baseline, is a warning; <= near_zero is a note. That of the input is above near_zero.
    Default: near_zero 1e-8, of_siblings 0.01, of_baseline 0.05. Blocks of healthy networks had 1e-4 and more,
    and at least 0.07 of the median. A smooth output is a note only: the target may be smooth too.
    Wrong when: blocks are meant to differ, as between the levels of a U-shaped network.
    """
    entered = input_place(record)
    there = entered.value(_STATISTIC) if entered is not None else None
    if there is None or there <= near_zero:
        return
    blocks = select_defined([place for place in module_places(record) if place.role == "block"], _STATISTIC)
    values = [value for _, value in blocks]
    for index, (place, value) in enumerate(blocks):
        usual = median_of_others(values, index)
        yield from _judge(place, value, usual, baseline, near_zero, of_siblings, of_baseline)
    end = output_place(record)
    left = end.value(_STATISTIC) if end is not None else None
    if end is not None and left is not None:
        yield from _judge(end, left, None, baseline, near_zero, of_siblings, of_baseline)


def _judge(
    place: Place[Any],
    value: float,
    usual: float | None,
    baseline: CaptureRecord | None,
    near_zero: float,
    of_siblings: float,
    of_baseline: float,
) -> Iterator[Symptom]:
    known = find_counterpart(place, baseline, lambda record: [*module_places(record), *_ends(record)])
    before = known.value(_STATISTIC) if known is not None else None
    below_others = usual is not None and value <= of_siblings * usual
    below_baseline = before is not None and value <= of_baseline * before
    if value <= near_zero or below_others or below_baseline:
        message = f"has lost its high frequencies: {format_number(value)} of its energy is above 1/4 cycle "
        message += "per grid point"
        message += f", in the other blocks {format_number(usual)}" if usual is not None else ""
        message += f", in the baseline {format_number(before)}" if before is not None else ""
        yield Symptom(
            severity="warning" if below_others or below_baseline else "note",
            place=place,
            message=message,
            evidence={_STATISTIC: value, "of_the_other_blocks": usual, "of_the_baseline": before},
            advice="The local branch is probably too weak, or there are too few modes: check both; a loss on "
            "gradients keeps edges.",
            explains=Consequences(rules=("high_frequency_loss",)),
        )


def _ends(record: CaptureRecord) -> list[Place[Any]]:
    end = output_place(record)
    return [end] if end is not None else []
