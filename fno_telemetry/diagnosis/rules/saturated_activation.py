"""Activations that sit in their flat parts."""

from collections.abc import Iterator
from typing import Any

from fno_telemetry.diagnosis.contract import OF_GRADIENTS, Symptom
from fno_telemetry.diagnosis.places import Place, module_places
from fno_telemetry.diagnosis.wording import digits
from fno_telemetry.records import CaptureRecord

_PERCENTILES = ("p05", "p50", "p95")
_TO_ONE = frozenset({"tanh", "hardtanh", "softsign"})  # flat at -1 and 1
_FROM_ZERO = frozenset({"sigmoid", "hardsigmoid"})  # flat at 0 and 1
_RECTIFIERS = frozenset({"gelu", "relu", "silu", "softplus", "elu", "mish", "relu6"})  # flat below


def saturated_activation(
    record: CaptureRecord, *, flat: float = 0.001, nothing: float = 0.001
) -> Iterator[Symptom]:
    """An activation function is in its flat parts nearly everywhere, where no gradient passes.

    Formula: tanh and the like: the 5th, 50th and 95th percentile all within flat of -1 or 1; sigmoid: within
    flat of 0 or 1; rectifiers (ReLU, GELU, …): the 99th percentile <= nothing and the 1st >= -nothing.
    Default: 0.001, where the derivative is 0.002 (tanh) and 0.001 (sigmoid). In healthy networks the 99th
    percentile of a GELU was 0.01 and more, or negative values were left.
    Wrong when: the last layer is to return such values, as amplitudes near 1.
    """
    for place in module_places(record):
        name = getattr(place.entry, "class_name", "").lower()
        found = [place.value(percentile) for percentile in _PERCENTILES]
        values = [float(value) for value in found if value is not None]
        if len(values) < len(_PERCENTILES):
            continue
        if name in _TO_ONE:
            saturated = all(abs(value) >= 1 - flat for value in values)
        elif name in _FROM_ZERO:
            saturated = all(value <= flat or value >= 1 - flat for value in values)
        else:
            saturated = name in _RECTIFIERS and _is_off(place, nothing)
        if saturated:
            yield Symptom(
                severity="warning",
                place=place,
                message=f"is saturated: half of its values are at {digits(values[1])}",
                evidence=dict(zip(_PERCENTILES, values, strict=True)),
                advice="What goes in is too large, or shifted: look at the layer before, or norm it.",
                explains=OF_GRADIENTS
                | {"saturated_activation", "input_independent", "dead_layer", "dead_channels"}
                | {"constant_channels", "constant_output", "vanishing_activations"},
            )


def _is_off(place: Place[Any], nothing: float) -> bool:
    low, high = place.value("p01"), place.value("p99")
    return low is not None and high is not None and high <= nothing and low >= -nothing
