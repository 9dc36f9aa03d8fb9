"""Finds activation functions that work in their linear part only."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Symptom, rule
from fno_telemetry.diagnosis.example_records import change_module, healthy_record
from fno_telemetry.diagnosis.places import module_places
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord

_RECTIFIERS = frozenset({"gelu", "relu", "leakyrelu", "leaky_relu", "silu", "elu", "mish", "softplus"})


@rule(
    about="values",
    fires_on=lambda: change_module(healthy_record(), "blocks.1.act", min=8.0, p01=9.0, mean=20.0),
    silent_on=lambda: change_module(healthy_record(), "blocks.1.act", min=-0.17, p01=-0.1, mean=20.0),
)
def linear_activation(record: CaptureRecord, *, least: float = 3) -> Iterator[Symptom]:
    """An activation function is given large positive values only, which it returns as they are.

    Formula: in a ReLU, leaky ReLU, GELU, SiLU, ELU, Mish or Softplus, the 1st percentile of the output is >=
        `least` (3): there each of them is a straight line.
    Default: in healthy networks, the 1st percentile was at most 0.
    False alarm when: only one sample was captured, and it is unusual.
    """
    for place in module_places(record):
        low = place.value("p01")
        if place.entry.class_name.lower() not in _RECTIFIERS or low is None or low < least:
            continue
        yield Symptom(
            severity="warning",
            place=place,
            message=f"is used as a straight line: 99 % of its values are above {format_number(low)}, where "
            f"{place.entry.class_name} returns what it is given",
            evidence={"p01": low, "mean": place.value("mean"), "std": place.value("std")},
            advice="The values before it are probably far from zero: check the bias of the layer before "
            "it, or put a normalisation layer between the two.",
        )
