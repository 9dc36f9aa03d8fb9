"""Finds layers that training does not change."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_module, healthy_record
from fno_telemetry.diagnosis.places import module_places
from fno_telemetry.records import CaptureRecord


@rule(
    about="gradients",
    fires_on=lambda: change_module(healthy_record(), "blocks.1.local", grad_norm=0.0, grad_to_weight=0.0),
    silent_on=lambda: change_module(healthy_record(), "blocks.1.local", grad_norm=3e-7, grad_to_weight=1e-7),
)
def stalled_update(record: CaptureRecord, *, near_zero: float = 1e-12) -> Iterator[Symptom]:
    """The loss does not depend on the weights of a layer, so training does not change them.

    The rule works only if the capture was made with `loss`.

    Formula: let w be the weights of a layer and g their gradient. One of
        (1) grad_norm = ‖g‖ = 0;
        (2) grad_to_weight = ‖g‖ / ‖w‖ <= `near_zero` (1e-12).
    Default: `near_zero` is 1e-12: at a learning rate of 1, gradient descent would need a hundred thousand
        steps to change the last digit of a weight in float32.
    False alarm when: the loss leaves out a layer on purpose. A frozen layer has no gradient and is never
        reported.
    """
    for place in module_places(record):
        norm, ratio = place.value("grad_norm"), place.value("grad_to_weight")
        if norm == 0 or (ratio is not None and ratio <= near_zero):
            yield Symptom(
                severity="warning",
                place=place,
                message="is not trained: the loss does not depend on its weights",
                evidence={"grad_norm": norm, "grad_to_weight": ratio},
                advice="A dead layer, a call of detach() or a saturated activation function after this layer "
                "probably stops the gradient: find which.",
                explains=Consequences(about=("gradients",), but_not=("exploding_gradient",)),
            )
