"""Gradients that throw weights away."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Symptom
from fno_telemetry.diagnosis.places import medians_downstream, module_places, select_defined
from fno_telemetry.diagnosis.wording import digits
from fno_telemetry.records import CaptureRecord


def exploding_gradient(
    record: CaptureRecord, *, of_others: float = 1e5, of_any: float = 1e7
) -> Iterator[Symptom]:
    """The gradient of a layer's weights towers above that of its kind, or is not finite; needs --loss.

    Formula: grad_nonfinite_count > 0; or grad_to_weight = ||g|| / ||w|| >= of_others times the median of the
    layers of the same class and role that are behind it, or >= of_any times that of all layers behind it
    where none is of its kind.
    Default: 1e5 and 1e7. In healthy networks, untrained and with a layer scale too, the largest were 1500 and
    150000 times it.
    Wrong when: the weights of a layer are nearly zero on purpose, as a gate that starts closed.
    """
    explained = frozenset({"exploding_gradient", "vanishing_gradient", "branch_gradient_imbalance"})
    advice = "Clip gradients, lower the rate, and look for what amplifies between here and the loss."
    for place, broken in select_defined(module_places(record), "grad_nonfinite_count"):
        if broken > 0:
            yield Symptom(
                severity="error",
                place=place,
                message=f"has {broken:.0f} gradients that are NaN or infinite",
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
                message=f"has a gradient {digits(ratio / usual)} times that of layers behind it",
                evidence={"grad_to_weight": ratio, "of_the_others": usual},
                advice=advice,
                explains=explained,
            )
