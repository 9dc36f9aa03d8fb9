"""Channels that return nothing."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Symptom
from fno_telemetry.diagnosis.places import input_place, module_places
from fno_telemetry.diagnosis.wording import percent
from fno_telemetry.records import CaptureRecord


def dead_channels(
    record: CaptureRecord, *, least: float = 0.01, least_of_activations: float = 0.9
) -> Iterator[Symptom]:
    """Some channels of a layer are zero for every sample and point.

    Formula: dead_channel_fraction >= least in a layer with weights, above what any layer before it has;
    >= least_of_activations behind an activation function. A channel is dead when its max |x| is at most 1e-6
    of the layer's rms.
    Default: 0.01 and 0.9: any channel of a common width: no healthy layer with weights has one. Behind
    rectifiers some are usual: GELU had up to 0.13 on data that it was not trained on, small untrained
    networks with ReLU 0.63.
    Wrong when: channels are padded with zeros on purpose, or weights were pruned.
    """
    entered = input_place(record)
    before = float(entered.value("dead_channel_fraction") or 0) if entered is not None else 0.0
    for place in module_places(record):
        fraction = place.value("dead_channel_fraction")
        if fraction is None or fraction == 1:
            continue  # all of them: that is a dead layer
        activation = place.role == "activation"
        limit = least_of_activations if activation else least
        if fraction >= limit and fraction > before and (activation or "weight_norm" in place.entry.stats):
            yield Symptom(
                severity="warning",
                place=place,
                message=f"has {percent(fraction)} dead channels",
                evidence={"dead_channel_fraction": fraction},
                advice="Lower the rate or the weight decay; a smoother activation keeps channels alive.",
                explains=frozenset({"dead_channels", "constant_channels"}),
            )
        before = max(before, float(fraction))
