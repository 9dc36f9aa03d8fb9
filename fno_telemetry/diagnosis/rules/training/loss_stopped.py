"""Finds trainings whose updates have ended."""

from collections.abc import Iterator, Sequence
from statistics import median

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import add_training, change_module, healthy_record, make_series
from fno_telemetry.diagnosis.places import module_places, select_defined
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord


def _series(*updates: float) -> list[CaptureRecord]:
    return make_series(
        *(
            add_training(change_module(healthy_record(), "head", update_to_weight=update), loss=1.0)
            for update in updates
        )
    )


@rule(
    about="training",
    needs=("training",),
    fires_on=lambda: _series(1e-2, 1e-2, 1e-7, 1e-7),
    silent_on=lambda: _series(1e-2, 1e-2, 5e-3, 2e-3),
)
def loss_stopped(
    series: Sequence[CaptureRecord], *, of_before: float = 0.01, least: float = 1e-5, high: float = 0.2
) -> Iterator[Symptom]:
    """The updates have become so small that the training stands still, while the loss is still high.

    Formula: let u be the median over the layers of update_to_weight, and the records be split in half. Both
        (1) the largest u is above `least` (1e-5), and the median of u over the last half is <= `of_before`
            (0.01) times the largest u before, and <= `least`;
        (2) the last loss is >= `high` (0.2) times the first one.
    Default: schedules of healthy trainings end at a hundredth of the first rate when the loss has fallen to a
        few percent.
    False alarm when: the loss cannot fall further, because of noise in the target.
    """
    updates = []
    for record in series:
        found = [value for _, value in select_defined(module_places(record), "update_to_weight")]
        updates.append(median(found) if found else None)
    known = [update for update in updates if update is not None]
    losses = [loss for record in series if (loss := record.summary.get("loss")) is not None]
    if len(known) < 4 or len(losses) < 2:
        return
    half = len(known) // 2
    before, after = max(known[:half]), median(known[half:])
    if before <= least or after > min(of_before * before, least) or losses[-1] < high * losses[0]:
        return
    rates = series[-1].training.get("learning_rates") or ()
    rate = max(rates, default=None)
    yield Symptom(
        severity="warning",
        record=series[-1],
        message=f"has stopped learning: an optimizer step changes the weights by {format_number(after)} of "
        f"their size, before by {format_number(before)}, and the loss is still {format_number(losses[-1])} "
        f"of {format_number(losses[0])}",
        evidence={
            "update_to_weight": after,
            "before": before,
            "first_loss": losses[0],
            "last_loss": losses[-1],
            "learning_rate": rate,
        },
        advice="The schedule has probably brought the learning rate down too early: check the number of "
        "steps that it was made for, and whether it is called once an epoch or once a step.",
        confirm="print the learning rate of each step: it should reach its end at the end of the training.",
        explains=Consequences(about=("accuracy", "steps")),
    )
