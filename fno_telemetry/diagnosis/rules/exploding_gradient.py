"""Finds gradients that destroy weights."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_module, healthy_record
from fno_telemetry.diagnosis.places import medians_downstream, module_places, select_defined
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord


@rule(
    about="gradients",
    fires_on=lambda: change_module(healthy_record(), "blocks.1.local", grad_to_weight=2000.0),
    silent_on=lambda: change_module(healthy_record(), "blocks.1.local", grad_to_weight=5.0),
)
def exploding_gradient(
    record: CaptureRecord, *, of_others: float = 1e5, of_any: float = 1e7
) -> Iterator[Symptom]:
    """The gradient of a layer's weights is far larger than that of later layers, or is not finite.

    Needs a capture with a loss.

    Formula: grad_nonfinite_count > 0; or grad_to_weight = ||g|| / ||w|| >= of_others times the median of the
    later layers of the same class and role, or, where there is none, >= of_any times that of all later
    layers.
    Default: of_others 1e5 and of_any 1e7. In healthy networks, also untrained or with a layer scale, the
    largest were 1500 and 150000 times it.
    Wrong when: the weights of a layer are nearly zero on purpose, as a gate that starts closed.
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
                message=f"has gradients that are NaN or infinite: {broken:.0f}",
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
                message=f"has a gradient {format_number(ratio / usual)} times that of later layers, "
                f"expected less than {format_number(limit)}",
                evidence={"grad_to_weight": ratio, "of_the_others": usual},
                advice=advice,
                explains=explained,
            )
