"""Gradients that throw weights away."""

from collections.abc import Iterator
from statistics import median

from fno_telemetry.diagnosis.contract import Symptom
from fno_telemetry.diagnosis.sites import module_sites, stated
from fno_telemetry.diagnosis.wording import digits
from fno_telemetry.records import CaptureRecord


def exploding_gradient(record: CaptureRecord, *, of_network: float = 1000) -> Iterator[Symptom]:
    """The gradient of a layer's weights towers above the network's, or is not finite; needs --loss.

    Formula: grad_nonfinite_count > 0; or grad_to_weight = ||g|| / ||w|| >= of_network times the median of all
    layers with weights.
    Default: 1000. In healthy networks the largest was 90 times the median.
    Wrong when: the weights of a layer are nearly zero on purpose, as a gate that starts closed.
    """
    found = stated(module_sites(record), "grad_to_weight")
    usual = median([ratio for _, ratio in found if ratio > 0] or [0.0])
    for site in module_sites(record):
        broken, ratio = site.value("grad_nonfinite_count") or 0, site.value("grad_to_weight")
        if broken:
            message = f"has {digits(broken)} gradients that are NaN or infinite"
        elif ratio is not None and usual > 0 and ratio >= of_network * usual:
            message = f"has a gradient of {digits(ratio / usual)} times what is usual here"
        else:
            continue
        yield Symptom(
            severity="error" if broken else "warning",
            site=site,
            message=message,
            evidence={"grad_to_weight": ratio, "median": usual, "grad_nonfinite_count": broken},
            advice="Clip gradients, lower the rate, and look for what amplifies between here and the loss.",
            explains=frozenset({"exploding_gradient", "vanishing_gradient", "branch_gradient_imbalance"}),
        )
