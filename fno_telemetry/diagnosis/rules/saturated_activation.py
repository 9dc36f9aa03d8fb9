"""Finds activations that are in their flat parts."""

from collections.abc import Iterator
from typing import Any

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_module, healthy_record
from fno_telemetry.diagnosis.places import Place, module_places
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord

_PERCENTILES = ("p05", "p50", "p95")
_TO_ONE = frozenset({"tanh", "hardtanh", "softsign"})  # flat at -1 and 1
_FROM_ZERO = frozenset({"sigmoid", "hardsigmoid"})  # flat at 0 and 1
_RECTIFIERS = frozenset({"gelu", "relu", "silu", "softplus", "elu", "mish", "relu6"})  # flat below zero


@rule(
    about="values",
    fires_on=lambda: change_module(
        healthy_record(), "blocks.1.act", class_name="Tanh", p05=-1.0, p50=1.0, p95=1.0
    ),
    silent_on=lambda: change_module(
        healthy_record(), "blocks.1.act", class_name="Tanh", p05=-1.0, p50=0.5, p95=1.0
    ),
)
def saturated_activation(
    record: CaptureRecord, *, flat: float = 0.001, nothing: float = 0.001
) -> Iterator[Symptom]:
    """An activation function is in its flat parts nearly everywhere, where no gradient passes.

    Formula: tanh and similar functions: the 5th, 50th and 95th percentile all within flat of -1 or 1;
    sigmoid: within flat of 0 or 1; rectifiers (ReLU, GELU, …): the 99th percentile <= nothing and the 1st >=
    -nothing.
    Default: flat and nothing 0.001, where the derivative is 0.002 (tanh) and 0.001 (sigmoid). In healthy
    networks the 99th percentile of a GELU was 0.01 and more, or negative values were left.
    Wrong when: the last layer is meant to return such values, as amplitudes near 1.
    """
    for place in module_places(record):
        name = getattr(place.entry, "class_name", "")
        found = [place.value(percentile) for percentile in _PERCENTILES]
        values = [float(value) for value in found if value is not None]
        if len(values) < len(_PERCENTILES):
            continue
        if name.lower() in _TO_ONE:
            saturated = all(abs(value) >= 1 - flat for value in values)
        elif name.lower() in _FROM_ZERO:
            saturated = all(value <= flat or value >= 1 - flat for value in values)
        else:
            saturated = name.lower() in _RECTIFIERS and _is_off(place, nothing)
        if saturated:
            yield Symptom(
                severity="warning",
                place=place,
                message=f"is saturated: nearly all values are in the flat parts of {name} (median "
                f"{format_number(values[1])})",
                evidence=dict(zip(_PERCENTILES, values, strict=True)),
                advice="Its input is probably too large or shifted: check the layer before it, or add a norm "
                "between them.",
                explains=Consequences(
                    about=("gradients",),
                    rules=(
                        *("saturated_activation", "input_independent", "dead_layer", "dead_channels"),
                        *("constant_channels", "constant_output", "vanishing_activations"),
                    ),
                ),
            )


def _is_off(place: Place[Any], nothing: float) -> bool:
    low, high = place.value("p01"), place.value("p99")
    return low is not None and high is not None and high <= nothing and low >= -nothing
