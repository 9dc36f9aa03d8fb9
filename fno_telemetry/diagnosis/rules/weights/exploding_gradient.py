"""Finds gradients that destroy weights."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_module, healthy_record
from fno_telemetry.diagnosis.places import medians_downstream, module_places, select_defined
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord


@rule(
    about="gradients",
    fires_on=lambda: change_module(
        healthy_record(), "blocks.1.local", grad_norm=6000.0, grad_to_weight=2000.0
    ),
    silent_on=lambda: change_module(healthy_record(), "blocks.1.local", grad_norm=15.0, grad_to_weight=5.0),
)
def exploding_gradient(
    record: CaptureRecord, *, of_others: float = 1e5, of_any: float = 1e7
) -> Iterator[Symptom]:
    """The gradient of a layer, relative to its weights, is far larger than in later layers, or not finite.

    The rule works only if the capture was made with `loss`.

    Formula: let q be grad_to_weight = ‖g‖ / ‖w‖, where w are the weights of a layer and g is their gradient.
        One of
        (1) grad_nonfinite_count > 0;
        (2) if later layers have the same class and role: q >= `of_others` (1e5) times their median q;
        (3) otherwise: q >= `of_any` (1e7) times the median q of all later layers.
    Default: `of_others` is 1e5 and `of_any` is 1e7. In healthy networks, also untrained ones and those with
        LayerScale (a small learned factor per block), q was at most 1500 times the median in (2) and 150000
        times the median in (3).
    False alarm when: the weights of a layer are nearly zero on purpose, such as those of a gate that is
        closed at the start of training.
    """
    explained = Consequences(about=("gradients",), but_not=("stalled_update",))
    advice = (
        "A layer between this one and the loss probably amplifies gradients: find it, clip gradients, or "
        "lower the learning rate."
    )
    for place, broken in select_defined(module_places(record), "grad_nonfinite_count"):
        if broken > 0:
            yield Symptom(
                severity="error",
                place=place,
                message=f"has NaN or infinite values in its gradient (number: {broken:.0f})",
                evidence={"grad_nonfinite_count": int(broken)},
                advice=advice,
                explains=explained,
            )
    found = select_defined(module_places(record), "grad_to_weight")
    for (place, ratio), against in zip(found, medians_downstream(found, of_others, of_any), strict=True):
        usual, limit = against or (0.0, 0.0)
        if usual > 0 and ratio >= limit * usual:
            yield Symptom(
                severity="warning",
                place=place,
                message="has a gradient, relative to its weights, that is "
                f"{format_number(ratio / usual)} times the median of later layers (expected: less than "
                f"{format_number(limit)} times)",
                evidence={"grad_to_weight": ratio, "of_the_others": usual},
                advice=advice,
                explains=explained,
            )
