"""Channels that return one number."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import OF_VALUES, Symptom
from fno_telemetry.diagnosis.places import input_place, module_places
from fno_telemetry.diagnosis.wording import percent
from fno_telemetry.records import CaptureRecord


def constant_channels(record: CaptureRecord, *, least: float = 0.01) -> Iterator[Symptom]:
    """Some channels of a layer are the same number for every sample and point, and not zero.

    Formula: constant_channel_fraction - dead_channel_fraction >= least in a layer with weights and spatial
    axes, above what any layer before it has. A channel is constant when its range is at most 1e-6 of its
    max |x|.
    Default: 0.01, any channel of a common width: no healthy layer with weights has one.
    Wrong when: a layer adds constants on purpose, such as the parameters of an equation.
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
                message="is one number in every channel"
                if constant == 1
                else f"has {percent(fraction)} channels that are one number each",
                evidence={"constant_channel_fraction": constant, "dead_channel_fraction": dead},
                advice="Only its bias is left: look at its weights and at what goes in.",
                explains=OF_VALUES if constant == 1 else frozenset({"constant_channels"}),
            )
        before = max(before, float(constant))
