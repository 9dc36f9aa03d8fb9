"""Finds channels that return nothing."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_module, healthy_record
from fno_telemetry.diagnosis.places import input_place, module_places
from fno_telemetry.diagnosis.wording import format_percent
from fno_telemetry.records import CaptureRecord


@rule(
    about="values",
    fires_on=lambda: change_module(healthy_record(), "blocks.1.local", dead_channel_fraction=0.0625),
    silent_on=lambda: change_module(healthy_record(), "blocks.1", dead_channel_fraction=0.5),
)
def dead_channels(
    record: CaptureRecord, *, least: float = 0.01, least_of_activations: float = 0.9
) -> Iterator[Symptom]:
    """Some channels of a layer are zero for every sample and point.

    Formula: dead_channel_fraction >= least in a layer with weights, or >= least_of_activations in an
    activation function, and more dead channels than in any layer before it. A channel is dead when its max
    |x| is at most 1e-6 of the layer's rms.
    Default: least 0.01, which is any channel of a common width: no healthy layer with weights has one.
    least_of_activations 0.9: after rectifiers some are usual; GELU had up to 0.13 on data that it was not
    trained on, small untrained networks with ReLU 0.63.
    Wrong when: channels are padded with zeros on purpose, or weights were pruned.
    """
    entered = input_place(record)
    before = float(entered.value("dead_channel_fraction") or 0) if entered is not None else 0.0
    for place in module_places(record):
        fraction = place.value("dead_channel_fraction")
        if fraction is None or fraction == 1:
            continue  # where all are dead, `dead_layer` reports it
        activation = place.role == "activation"
        limit = least_of_activations if activation else least
        if fraction >= limit and fraction > before and (activation or "weight_norm" in place.entry.stats):
            yield Symptom(
                severity="warning",
                place=place,
                message=f"has {format_percent(fraction)} dead channels, expected less than "
                f"{format_percent(limit)}",
                evidence={"dead_channel_fraction": fraction},
                advice="The learning rate or the weight decay is probably too high: lower it, or use a "
                "smoother activation.",
                explains=Consequences(rules=("dead_channels", "constant_channels")),
            )
        before = max(before, float(fraction))
