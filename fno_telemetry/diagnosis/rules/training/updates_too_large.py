"""Finds optimizer steps that change weights too much."""

from collections.abc import Iterator, Sequence
from statistics import median

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import add_training, change_module, healthy_record, make_series
from fno_telemetry.diagnosis.places import module_places, select_defined
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord


def _series(update: float, *losses: float) -> list[CaptureRecord]:
    changed = healthy_record()
    for module in changed.modules:
        if module.stats.get("weight_norm") is not None:
            changed = change_module(changed, module.name, update_to_weight=update)
    return make_series(*(add_training(changed, loss=loss) for loss in losses))


@rule(
    about="training",
    needs=("training",),
    fires_on=lambda: _series(0.6, 1.0, 1.0, 1.5),
    silent_on=lambda: _series(0.01, 1.0, 0.7, 0.5),
)
def updates_too_large(
    series: Sequence[CaptureRecord], *, large: float = 0.15, fallen: float = 0.7
) -> Iterator[Symptom]:
    """Optimizer steps change the weights by so much that the loss does not fall.

    Formula: let u be the median over the layers of update_to_weight = ‖w after the step - w before‖ /
        ‖w before‖. Both
        (1) u >= `large` (0.15) in a record;
        (2) the last known loss is > `fallen` (0.7) times the first, or is not finite.
        The finding is at the first record with (1).
    Default: healthy training had u of at most 0.03 in the first steps, and 1e-4 to 1e-2 later.
    False alarm when: the records are of the first steps, of weights that start near zero.
    """
    found = []
    for record in series:
        updates = [value for _, value in select_defined(module_places(record), "update_to_weight")]
        if updates and median(updates) >= large:
            found.append((record, median(updates)))
    losses = [record.summary.get("loss") for record in series]
    known = [loss for loss in losses if loss is not None]
    if not found or len(known) < 2:
        return
    where, update = found[0][0], max(value for _, value in found)
    is_broken = losses[-1] is None
    if not is_broken and known[-1] <= fallen * known[0]:
        return
    rates = series[-1].training.get("learning_rates") or ()
    rate = max(rates, default=None)
    course = "is not finite" if is_broken else f"went from {format_number(known[0])} to "
    course += "" if is_broken else format_number(known[-1])
    yield Symptom(
        severity="warning",
        record=where,
        message=f"takes steps that are too large: one optimizer step changes the weights of a layer by "
        f"{format_number(update)} times their size, and the loss {course}",
        evidence={
            "update_to_weight": update,
            "first_loss": known[0],
            "last_loss": known[-1],
            "learning_rate": rate,
        },
        advice="The learning rate is probably too high"
        + (f" ({format_number(rate)})" if rate is not None else "")
        + ": lower it ten times, warm it up over the first steps, or clip the gradients.",
        confirm="`update_to_weight` should be 1e-4 to 1e-2 in every layer.",
        explains=Consequences(about=("accuracy", "values", "gradients", "finiteness", "steps")),
    )
