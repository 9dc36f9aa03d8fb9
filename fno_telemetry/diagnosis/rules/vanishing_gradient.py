"""Finds layers that get almost no gradient."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_module, healthy_record
from fno_telemetry.diagnosis.places import medians_downstream, module_places, select_defined
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord


@rule(
    about="gradients",
    fires_on=lambda: change_module(healthy_record(), "blocks.1.local", grad_to_weight=1e-8),
    silent_on=lambda: change_module(healthy_record(), "blocks.1.local", grad_to_weight=1e-6),
)
def vanishing_gradient(
    record: CaptureRecord, *, of_others: float = 1e-5, of_any: float = 1e-7
) -> Iterator[Symptom]:
    """The gradient of a layer's weights is far smaller than that of later layers.

    Needs a capture with a loss.

    Formula: 0 < grad_to_weight = ||g|| / ||w|| <= of_others times the median of the later layers of the same
    class and role, or, where there is none, <= of_any times that of all later layers.
    Default: of_others 1e-5 and of_any 1e-7. In healthy networks, also untrained or with a layer scale, the
    lowest were 8e-4 and 2e-6 of it.
    Wrong when: a layer is trained with a far larger learning rate of its own.
    """
    found = select_defined(module_places(record), "grad_to_weight")
    for (place, ratio), against in zip(found, medians_downstream(found, of_others, of_any), strict=True):
        usual, limit = against or (0.0, 0.0)
        if 0 < ratio <= limit * usual:
            yield Symptom(
                severity="warning",
                place=place,
                message=f"has a gradient {format_number(ratio / usual)} times that of later layers, "
                f"expected more than {format_number(limit)}",
                evidence={
                    "grad_to_weight": ratio,
                    "of_the_others": usual,
                    "grad_norm": place.value("grad_norm"),
                },
                advice="A saturated activation, a small scale or a dead layer between it and the loss "
                "probably stops the gradient: check these.",
                explains=Consequences(about=("gradients",), but_not=("exploding_gradient",)),
            )
