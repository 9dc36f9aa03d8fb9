"""Finds optimizer steps that change weights too much."""

from collections.abc import Iterator, Sequence
from statistics import median

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import add_training, change_module, healthy_record, make_series
from fno_telemetry.diagnosis.places import module_places, select_defined
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord, TensorRecord

_SETTLED = 6  # records, at least, that tell how large the updates of a run usually are
_ENDS = 3  # losses of the first records, and of the last ones, of which the median counts
_MOST_NOISE = 10  # times the smallest of these losses
_WORSE = 1.05  # the loss over the first one


def _series(updates: Sequence[float], losses: Sequence[float]) -> list[CaptureRecord]:
    records = []
    for update, loss in zip(updates, losses, strict=True):
        changed = healthy_record()
        for module in changed.modules:
            if module.stats.get("weight_norm") is not None:
                changed = change_module(changed, module.name, update_to_weight=update)
        records.append(add_training(changed, loss=loss))
    return make_series(*records)


@rule(
    about="training",
    needs=("training",),
    fires_on=lambda: _series((0.6, 0.6, 0.6), (1.0, 1.0, 1.5)),
    silent_on=lambda: _series((0.01, 0.01, 0.01), (1.0, 0.7, 0.5)),
)
def updates_too_large(
    series: Sequence[CaptureRecord],
    *,
    large: float = 0.15,
    fallen: float = 0.7,
    sudden: float = 3,
    least_sudden: float = 0.05,
    grown: float = 0.03,
    huge: float = 0.3,
    risen: float = 3,
) -> Iterator[Symptom]:
    """Optimizer steps change the weights by so much that the loss does not fall, or suddenly by far more.

    Formula: let u be the median over the layers of update_to_weight = ‖w after the step - w before‖ /
        ‖w before‖. The first record with one of
        (1) u >= `large` (0.15), if the last known loss is > `fallen` (0.7) times the first, or is not finite;
        (2) u >= `least_sudden` (0.05), and u >= `sudden` (3) times the largest u of the records before, of
            which there are three or more;
        (3) u >= `grown` (0.03), and u >= `sudden` times the median of the u of the records before, of which
            there are six or more, if u had fallen to half of the first ones since: it grows again;
        (4) u >= `huge` (0.3), if the loss of the next record is larger than the first one;
        (5) a loss >= `risen` (3) times the first one, if the last loss is not below the first, or is not
            finite;
        (6) a loss that is not finite after one that is, if all inputs and targets of the records are finite.
        It is an error if the last loss is > `fallen` times the first, or not finite. Of six records or more
        the first and the last loss are medians of three, as losses of small batches are noisy, or the first
        one itself if it is larger.
    Default: healthy training had u of at most 0.04 (0.1 with a high rate), the most in the first steps, and
        1e-4 to 1e-2 later; from one record to the next u did not double, except during a warm-up.
    False alarm when: the records are of the first steps, of weights that start near zero; or a batch with a
        broken target is the reason.
    """
    updates = [_update(record) for record in series]
    losses = [record.summary.get("loss") for record in series]
    known = [loss for loss in losses if loss is not None]
    first, last = _find_ends(known)
    is_broken = bool(known) and losses[-1] is None
    stays = first is not None and last is not None and (is_broken or last > fallen * first)
    ends_above = first is not None and last is not None and (is_broken or last >= first)
    is_clean = all(_is_finite(record.input) and _is_finite(record.target) for record in series)
    rate = max(series[-1].training.get("learning_rates") or (), default=None)
    for index, (record, update) in enumerate(zip(series, updates, strict=True)):
        before = [each for each in updates[:index] if each is not None]
        jumps = update is not None and len(before) >= 3 and update >= max(least_sudden, sudden * max(before))
        is_large = update is not None and update >= large and stays and len(known) > 1
        loss, next_losses = losses[index], losses[index + 1 : index + 2]
        is_worse = first is not None and any(
            each is not None and each > _WORSE * first for each in next_losses
        )
        is_large = is_large or (update is not None and update >= huge and is_worse)
        again = update is not None and update >= grown and _grows_again(before, update / sudden)
        grows = first is not None and loss is not None and loss >= risen * first and ends_above
        breaks = loss is None and first is not None and losses[0] is not None and is_broken and is_clean
        if not (jumps or again or is_large or grows or breaks):
            continue
        if jumps and update is not None:
            message = "takes a step that is far too large: it changes the weights of a layer by "
            message += f"{format_number(update)} times their size, earlier ones by at most "
            message += format_number(max(before))
        elif again and update is not None:
            message = "takes larger and larger steps: one changes the weights of a layer by "
            message += (
                f"{format_number(update)} times their size, earlier ones by {format_number(median(before))}"
            )
        elif is_large and update is not None:
            message = "takes steps that are too large: one optimizer step changes the weights of a layer by "
            message += f"{format_number(update)} times their size"
        else:
            message = "takes steps that are too large: it diverges"
        course = "" if first is None else f", and the loss {_describe(first, last, is_broken)}"
        yield Symptom(
            severity="error" if stays else "warning",
            record=record,
            message=message + course,
            evidence={
                "update_to_weight": update,
                "before": max(before, default=None),
                "first_loss": first,
                "loss": loss,
                "last_loss": last,
                "learning_rate": rate,
            },
            advice="The learning rate is probably too high"
            + (f" ({format_number(rate)})" if rate is not None else "")
            + ": lower it ten times, warm it up over the first steps, clip the gradients, and clear them "
            "after each step (`zero_grad`). If it happens once, look at the rate and at the batch of that "
            "step.",
            confirm="`update_to_weight` should be 1e-4 to 1e-2 in every layer.",
            explains=Consequences(about=("accuracy", "values", "gradients", "finiteness", "steps")),
        )
        return


def _find_ends(losses: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the loss at the start and at the end: medians, since those of small batches are noisy.

    Of few records it is the first and the last one, and so where the loss changes by more than noise.
    """
    if not losses:
        return None, None
    if len(losses) < 2 * _ENDS:
        return losses[0], losses[-1]
    start, end = (
        median(few) if max(few) <= _MOST_NOISE * min(few) else None
        for few in (losses[:_ENDS], losses[-_ENDS:])
    )
    # The first one itself where it is larger: then the loss falls from the beginning.
    return losses[0] if start is None else max(losses[0], start), losses[-1] if end is None else end


def _grows_again(before: Sequence[float], most: float) -> bool:
    """Return whether half of the updates before were at most so large, after first ones twice as large."""
    if len(before) < _SETTLED or median(before) > most:
        return False
    lowest = min(range(len(before)), key=before.__getitem__)
    return lowest > 0 and max(before[:lowest]) >= 2 * before[lowest]


def _is_finite(tensor: TensorRecord | None) -> bool:
    return tensor is None or tensor.stats.get("finite_fraction") in (None, 1.0)


def _update(record: CaptureRecord) -> float | None:
    updates = [value for _, value in select_defined(module_places(record), "update_to_weight")]
    return median(updates) if updates else None


def _describe(first: float, last: float | None, is_broken: bool) -> str:
    if is_broken or last is None:
        return "is not finite"
    return f"went from {format_number(first)} to {format_number(last)}"
