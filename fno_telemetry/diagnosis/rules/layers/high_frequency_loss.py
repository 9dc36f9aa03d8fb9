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
    """A block, or the output, has lost its high frequencies although the model's input has some.

    Formula: let h be high_frequency_fraction, the share of energy above 1/4 cycle per grid point. h of the
        model's input is > `near_zero` (1e-8), and for a block or the model's output one of
        (1) a block: h <= `of_siblings` (0.01) times the median of the other blocks (a warning);
        (2) if the baseline contains the block or output: h <= `of_baseline` (0.05) times its value in the
            baseline, and less than h of the model's input (a warning);
        (3) h <= `near_zero` (a note, unless (1) or (2) holds).
    Default: `near_zero` is 1e-8, `of_siblings` is 0.01 and `of_baseline` is 0.05. In healthy networks, h of
        every block was at least 1e-4, and at least 0.07 times the median h of the blocks. (3) is only a note,
        because the target may be smooth too. An untrained network adds high frequencies that training takes
        away; below those of the input is beyond that.
    False alarm when: blocks are meant to differ, as between the levels of a U-shaped network.
    """
    entered = input_place(record)
    there = entered.value(_STATISTIC) if entered is not None else None
    if there is None or there <= near_zero:
        return
    blocks = select_defined([place for place in module_places(record) if place.role == "block"], _STATISTIC)
    values = [value for _, value in blocks]
    for index, (place, value) in enumerate(blocks):
        usual = median_of_others(values, index, high=False)
        yield from _judge(place, value, usual, there, baseline, near_zero, of_siblings, of_baseline)
    end = output_place(record)
    left = end.value(_STATISTIC) if end is not None else None
    if end is not None and left is not None:
        yield from _judge(end, left, None, there, baseline, near_zero, of_siblings, of_baseline)


def _judge(
    place: Place[Any],
    value: float,
    usual: float | None,
    entered: float,
    baseline: CaptureRecord | None,
    near_zero: float,
    of_siblings: float,
    of_baseline: float,
) -> Iterator[Symptom]:
    known = find_counterpart(place, baseline, lambda record: [*module_places(record), *_ends(record)])
    before = known.value(_STATISTIC) if known is not None else None
    below_others = usual is not None and value <= of_siblings * usual
    below_baseline = before is not None and value <= of_baseline * before and value < entered
    if value <= near_zero or below_others or below_baseline:
        message = f"has lost its high frequencies: {format_number(value)} of its energy is above 1/4 cycle "
        message += "per grid point"
        expected = [] if usual is None else [f"median of the other blocks: {format_number(usual)}"]
        expected += [] if before is None else [f"in the baseline: {format_number(before)}"]
        message += f" ({'; '.join(expected)})" if expected else ""
        yield Symptom(
            severity="warning" if below_others or below_baseline else "note",
            place=place,
            message=message,
            evidence={_STATISTIC: value, "of_the_other_blocks": usual, "of_the_baseline": before},
            advice="The local branch is probably too weak, or there are too few modes: check both. A loss "
            "term on the spatial derivatives of the field (H1 or Sobolev loss) keeps edges sharp.",
            explains=Consequences(rules=("high_frequency_loss",)),
        )


def _ends(record: CaptureRecord) -> list[Place[Any]]:
    end = output_place(record)
    return [end] if end is not None else []
