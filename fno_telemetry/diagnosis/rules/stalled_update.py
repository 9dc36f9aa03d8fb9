"""Layers that training does not move."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import OF_GRADIENTS, Symptom
from fno_telemetry.diagnosis.places import module_places
from fno_telemetry.records import CaptureRecord


def stalled_update(record: CaptureRecord, *, near_zero: float = 1e-12) -> Iterator[Symptom]:
    """The loss does not depend on a layer's weights, so that no step moves them; needs --loss.

    Formula: grad_norm = 0, or grad_to_weight = ||g|| / ||w|| <= near_zero.
    Default: 1e-12: with a rate of 1 it would take a hundred thousand steps to reach a digit of float32.
    Wrong when: a layer is left out of the loss on purpose. One that is frozen has no gradient and is not
    named.
    """
    for place in module_places(record):
        norm, ratio = place.value("grad_norm"), place.value("grad_to_weight")
        if norm == 0 or (ratio is not None and ratio <= near_zero):
            yield Symptom(
                severity="warning",
                place=place,
                message="is not trained: the loss does not depend on its weights",
                evidence={"grad_norm": norm, "grad_to_weight": ratio},
                advice="Look for a dead layer, a detach or a saturated activation behind it.",
                explains=OF_GRADIENTS - {"exploding_gradient"},
            )
