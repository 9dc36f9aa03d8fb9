"""Layers that the loss hardly reaches."""

from collections.abc import Iterator
from statistics import median

from fno_telemetry.diagnosis.contract import Symptom
from fno_telemetry.diagnosis.sites import module_sites, stated
from fno_telemetry.diagnosis.wording import digits
from fno_telemetry.records import CaptureRecord


def vanishing_gradient(record: CaptureRecord, *, of_network: float = 1e-4) -> Iterator[Symptom]:
    """The gradient of a layer's weights is far smaller than elsewhere in the network; needs --loss.

    Formula: 0 < grad_to_weight <= of_network times the median of all layers with weights, where
    grad_to_weight = ||g|| / ||w||.
    Default: 1e-4. In healthy networks the lowest was 0.003 of the median.
    Wrong when: a layer is to be trained with a far larger rate of its own.
    """
    found = stated(module_sites(record), "grad_to_weight")
    usual = median([ratio for _, ratio in found if ratio > 0] or [0.0])
    for site, ratio in found:
        if 0 < ratio <= of_network * usual:
            yield Symptom(
                severity="warning",
                site=site,
                message=f"gets next to no gradient: {digits(ratio / usual)} of what is usual here",
                evidence={"grad_to_weight": ratio, "median": usual, "grad_norm": site.value("grad_norm")},
                advice="Look at what is between it and the loss: saturated activations, scales, dead layers.",
                explains=frozenset({"vanishing_gradient", "stalled_update", "branch_gradient_imbalance"}),
            )
