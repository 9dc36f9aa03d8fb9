"""Finds layers whose weights get almost no gradient."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_module, healthy_record
from fno_telemetry.diagnosis.places import medians_downstream, module_places, select_defined
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord


@rule(
    about="gradients",
    fires_on=lambda: change_module(healthy_record(), "blocks.1.local", grad_norm=3e-10, grad_to_weight=1e-10),
    silent_on=lambda: change_module(healthy_record(), "blocks.1.local", grad_norm=3e-8, grad_to_weight=1e-8),
)
def vanishing_gradient(
    record: CaptureRecord, *, of_others: float = 5e-7, of_any: float = 1e-7
) -> Iterator[Symptom]:
    """The gradient of a layer, relative to its weights, is far smaller than in later layers.

    The rule works only if the capture was made with `loss`.

    Formula: let q be grad_to_weight = ‖g‖ / ‖w‖, where w are the weights of a layer and g is their gradient.
        q > 0, and one of
        (1) if later layers have the same class and role: q <= `of_others` (5e-7) times their median q;
        (2) otherwise: q <= `of_any` (1e-7) times the median q of all later layers.
    Default: `of_others` is 5e-7 and `of_any` is 1e-7. In healthy networks, also untrained ones and those with
        LayerScale (a small learned factor per block), q was at least 8e-4 times the median in (1), 1e-6 times
        in an untrained U-Net with BatchNorm, and at least 2e-6 times the median in (2).
    False alarm when: a layer is trained with a far larger learning rate of its own.
    """
    found = select_defined(module_places(record), "grad_to_weight")
    for (place, ratio), against in zip(found, medians_downstream(found, of_others, of_any), strict=True):
        usual, limit = against or (0.0, 0.0)
        if 0 < ratio <= limit * usual:
            yield Symptom(
                severity="warning",
                place=place,
                message="has a gradient, relative to its weights, that is only "
                f"{format_number(ratio / usual)} times the median of later layers (expected: more than "
                f"{format_number(limit)} times)",
                evidence={
                    "grad_to_weight": ratio,
                    "of_the_others": usual,
                    "grad_norm": place.value("grad_norm"),
                },
                advice="A saturated activation function, a small scaling factor or a dead layer between this "
                "layer and the loss probably stops the gradient: check these.",
                explains=Consequences(about=("gradients",), but_not=("exploding_gradient",)),
            )
