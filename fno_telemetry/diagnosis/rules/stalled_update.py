"""Finds layers that training does not change."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_module, healthy_record
from fno_telemetry.diagnosis.places import module_places
from fno_telemetry.records import CaptureRecord


@rule(
    about="gradients",
    fires_on=lambda: change_module(healthy_record(), "blocks.1.local", grad_norm=0.0, grad_to_weight=0.0),
    silent_on=lambda: change_module(healthy_record(), "blocks.1.local", grad_norm=1e-6, grad_to_weight=1e-7),
)
def stalled_update(record: CaptureRecord, *, near_zero: float = 1e-12) -> Iterator[Symptom]:
    """The loss does not depend on a layer's weights, so no step changes them; needs a capture with a loss.

    Formula: grad_norm = 0, or grad_to_weight = ||g|| / ||w|| <= near_zero.
    Default: near_zero 1e-12: at a learning rate of 1 it would take a hundred thousand steps to change the
    last digit of float32.
    Wrong when: a layer is left out of the loss on purpose. A frozen layer has no gradient and is not
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
                advice="A dead layer, a detach or a saturated activation after it probably stops the "
                "gradient: find it.",
                explains=Consequences(about=("gradients",), but_not=("exploding_gradient",)),
            )
