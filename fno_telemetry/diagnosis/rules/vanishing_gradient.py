"""Layers that the loss hardly reaches."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Symptom
from fno_telemetry.diagnosis.places import medians_downstream, module_places, select_defined
from fno_telemetry.diagnosis.wording import digits
from fno_telemetry.records import CaptureRecord


def vanishing_gradient(
    record: CaptureRecord, *, of_others: float = 1e-5, of_any: float = 1e-7
) -> Iterator[Symptom]:
    """The gradient of a layer's weights is far smaller than that of others of its kind; needs --loss.

    Formula: 0 < grad_to_weight = ||g|| / ||w|| <= of_others times the median of the layers of the same class
    and role that are behind it, or <= of_any times that of all layers behind it where none is of its kind.
    Default: 1e-5 and 1e-7. In healthy networks, untrained and with a layer scale too, the lowest were 8e-4
    and 2e-6 of it.
    Wrong when: a layer is to be trained with a far larger rate of its own.
    """
    found = select_defined(module_places(record), "grad_to_weight")
    for (place, ratio), against in zip(found, medians_downstream(found, of_others, of_any), strict=True):
        usual, limit = against or (0.0, 0.0)
        if 0 < ratio <= limit * usual:
            yield Symptom(
                severity="warning",
                place=place,
                message=f"gets next to no gradient: {digits(ratio / usual)} of what layers behind it get",
                evidence={
                    "grad_to_weight": ratio,
                    "of_the_others": usual,
                    "grad_norm": place.value("grad_norm"),
                },
                advice="Look at what is between it and the loss: saturated activations, scales, dead layers.",
                explains=frozenset({"vanishing_gradient", "stalled_update", "branch_gradient_imbalance"}),
            )
