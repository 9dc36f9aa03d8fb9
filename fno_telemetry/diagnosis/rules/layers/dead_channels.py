"""Finds channels that return nothing."""

from collections.abc import Iterator

from fno_telemetry.comparison.learning import is_trained
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
    record: CaptureRecord, *, least: float = 0.01, least_of_activations: float = 0.9, of_trained: float = 0.75
) -> Iterator[Symptom]:
    """Some channels of a layer are zero at all points of all samples.

    Formula: both
        (1) dead_channel_fraction >= `least` (0.01) in a layer with weights, or >= `least_of_activations`
            (0.9) in an activation function, `of_trained` (0.75) in one that is no ReLU, if the network is
            trained for some steps; and
        (2) dead_channel_fraction is larger than in the model's input and in every layer before it.
        A channel is dead if its max |x| is at most 1e-6 times the rms of the layer. A layer in which all
        channels are dead is reported by dead_layer.
    Default: `least` is 0.01, so one dead channel is enough in a layer of 100 channels or fewer. In healthy
        networks, no layer with weights has a dead channel. `least_of_activations` is 0.9, because some dead
        channels are usual after a ReLU: up to 63 % in small untrained networks, 79 % in trained U-Nets. After
        a GELU, up to 13 % of the channels were dead on data that the network was not trained on.
        `of_trained` is 0.75: in trained healthy networks none were after functions smoother than a ReLU.
    False alarm when: channels are padded with zeros on purpose, or weights were pruned.
    """
    entered = input_place(record)
    before = float(entered.value("dead_channel_fraction") or 0) if entered is not None else 0.0
    for place in module_places(record):
        fraction = place.value("dead_channel_fraction")
        if fraction is None or fraction == 1:
            continue  # where all are dead, `dead_layer` reports it
        activation = place.role == "activation"
        limit = least
        if activation:
            is_strict = is_trained(record) and "relu" not in place.entry.class_name.lower()
            limit = min(of_trained, least_of_activations) if is_strict else least_of_activations
        if fraction >= limit and fraction > before and (activation or "weight_norm" in place.entry.stats):
            yield Symptom(
                severity="warning",
                place=place,
                message=f"has {format_percent(fraction)} dead channels (expected: less than "
                f"{format_percent(limit)})",
                evidence={"dead_channel_fraction": fraction},
                advice="The learning rate or the weight decay is probably too high, or a bias is far below "
                "zero: lower the rate, check the biases before it, or use a smoother activation function.",
                explains=Consequences(rules=("dead_channels", "constant_channels")),
            )
        before = max(before, float(fraction))
