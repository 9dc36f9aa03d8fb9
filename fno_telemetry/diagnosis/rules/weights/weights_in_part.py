"""Finds networks in which only a part of the weights is that of the baseline."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import add_target, change_module, healthy_record
from fno_telemetry.diagnosis.places import module_places, select_defined
from fno_telemetry.diagnosis.wording import format_number, join_names
from fno_telemetry.records import CaptureRecord

_MOST_NAMED = 4


def _with_weights(norm: float, error: float) -> CaptureRecord:
    record = change_module(healthy_record(), "blocks.1.local", weight_norm=norm)
    return add_target(record, error_to_mean_predictor=error)


@rule(
    about="weights",
    needs=("target", "baseline"),
    fires_on=lambda: _with_weights(2.5, 1.1),
    silent_on=lambda: _with_weights(2.5, 0.11),
    against=lambda: _with_weights(3.0, 0.1),
)
def weights_in_part(
    record: CaptureRecord, *, baseline: CaptureRecord | None = None, times: float = 2
) -> Iterator[Symptom]:
    """Some layers have exactly the weights of the baseline, others do not, and the error is larger.

    Formula: weight_norm is the same to the last digit as in the baseline in a layer, it is another one in
        another layer, and error_to_mean_predictor is >= `times` (2) times its value in the baseline.
    Default: `times` is 2: two healthy trainings of a network differed by less.
    False alarm when: some layers are frozen, and the others are trained for another task.
    """
    if baseline is None:
        return
    errors = [
        one.accuracy.stats.get("error_to_mean_predictor") if one.accuracy is not None else None
        for one in (record, baseline)
    ]
    if errors[0] is None or errors[1] is None or errors[0] < times * errors[1]:
        return
    before = {place.name: norm for place, norm in select_defined(module_places(baseline), "weight_norm")}
    known = [
        (place, norm == before[place.name])
        for place, norm in select_defined(module_places(record), "weight_norm")
        if place.name in before
    ]
    others = [place for place, is_same in known if not is_same]
    if not others or len(others) == len(known):
        return
    names = join_names([place.name for place in others], _MOST_NAMED)
    yield Symptom(
        severity="warning",
        place=others[0],
        message=f"and other layers do not have the weights of the baseline, as if they were not loaded: "
        f"{len(others)} of {len(known)} ({names}); all others are exactly the same, and the error is "
        f"{format_number(errors[0])}, in the baseline {format_number(errors[1])}",
        evidence={
            "other_layers": len(others),
            "same_layers": len(known) - len(others),
            "error_to_mean_predictor": errors[0],
            "of_the_baseline": errors[1],
        },
        advice="The checkpoint was probably loaded in part: load it with `strict=True`, and look at the "
        "missing and unexpected names, often a prefix such as `module.` or another number of blocks.",
        confirm="`load_state_dict(…, strict=False)` returns the missing names: there should be none.",
        explains=Consequences(about=("values", "weights", "accuracy", "gradients")),
    )
