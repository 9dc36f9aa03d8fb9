"""Finds activation functions that are in their flat parts."""

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
        healthy_record(), "blocks.1.act", class_name="Tanh", min=-1.0, p05=-1.0, p50=1.0, p95=1.0, max=1.0
    ),
    silent_on=lambda: change_module(
        healthy_record(), "blocks.1.act", class_name="Tanh", min=-1.0, p05=-1.0, p50=0.5, p95=1.0, max=1.0
    ),
)
def saturated_activation(
    record: CaptureRecord, *, flat: float = 0.001, nothing: float = 0.001
) -> Iterator[Symptom]:
    """Nearly all values of an activation function are in its flat parts, where almost no gradient passes.

    Formula: p01, p05, p50, p95 and p99 are the 1st, 5th, 50th, 95th and 99th percentile of the output. One of
        (1) Tanh, Hardtanh or Softsign: |p05|, |p50| and |p95| are all >= 1 - `flat` (0.001);
        (2) Sigmoid or Hardsigmoid: p05, p50 and p95 are all <= `flat` (0.001) or >= 1 - `flat`;
        (3) ReLU, ReLU6, GELU, SiLU, Softplus, ELU or Mish: p99 <= `nothing` (0.001) · u and p01 >= -`nothing`
            · u, where u is the rms of the input, at most 1; 0 where the input was overwritten in place.
    Default: `flat` is 0.001: there the derivative is 0.002 (tanh) or 0.001 (sigmoid). `nothing` is 0.001: in
        healthy networks, p99 of a GELU was at least 0.01, or the GELU still returned negative values.
    False alarm when: the last layer is meant to return such values, for example amplitudes near 1.
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
                advice="The values of its input are probably too far from zero: check the layer before it, "
                "or add a normalisation layer between the two.",
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
    entered = place.value("input_rms") if "input_rms" in place.entry.stats else 1.0
    limit = nothing * min(1.0, entered or 0.0)
    return low is not None and high is not None and high <= limit and low >= -limit
