"""Finds channels that return one constant."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_module, healthy_record
from fno_telemetry.diagnosis.places import input_place, module_places
from fno_telemetry.diagnosis.wording import format_percent
from fno_telemetry.records import CaptureRecord


@rule(
    about="values",
    fires_on=lambda: change_module(healthy_record(), "blocks.1.local", constant_channel_fraction=0.0625),
    silent_on=lambda: change_module(
        healthy_record(), "blocks.1.local", constant_channel_fraction=0.0625, dead_channel_fraction=0.0625
    ),
)
def constant_channels(record: CaptureRecord, *, least: float = 0.01) -> Iterator[Symptom]:
    """Some channels of a layer return one constant, non-zero value at all points of all samples.

    Formula: in a layer with weights and spatial axes, both
        (1) constant_channel_fraction - dead_channel_fraction >= `least` (0.01); and
        (2) constant_channel_fraction is larger than in the model's input and in every layer before it.
        A channel is constant if the range of its values is at most 1e-6 times its max |x|.
    Default: `least` is 0.01, so one constant channel is enough in a layer of 100 channels or fewer. In
        healthy networks, no layer with weights has a constant channel.
    False alarm when: a layer adds constant channels on purpose, such as the parameters of an equation.
    """
    entered = input_place(record)
    before = float(entered.value("constant_channel_fraction") or 0) if entered is not None else 0.0
    for place in module_places(record):
        constant, dead = place.value("constant_channel_fraction"), place.value("dead_channel_fraction")
        if constant is None or dead is None:
            continue
        fraction = float(constant) - float(dead)
        has_weights = "weight_norm" in place.entry.stats and bool(place.entry.spatial_axes)
        if fraction >= least and constant > before and has_weights:
            yield Symptom(
                severity="error" if constant == 1 else "warning",
                place=place,
                message="is constant in every channel"
                if constant == 1
                else f"is constant in {format_percent(fraction)} of its channels (expected: less than "
                f"{format_percent(least)})",
                evidence={"constant_channel_fraction": constant, "dead_channel_fraction": dead},
                advice="These channels probably return only their bias: check the weights of this layer and "
                "its input.",
                explains=Consequences(about=("values",))
                if constant == 1
                else Consequences(rules=("constant_channels",)),
            )
        before = max(before, float(constant))
