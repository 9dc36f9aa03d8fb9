"""Finds networks without an activation function, and activation functions that are used as lines."""

from collections.abc import Iterator
from dataclasses import replace

from fno_telemetry.diagnosis.contract import Symptom, rule
from fno_telemetry.diagnosis.example_records import healthy_record
from fno_telemetry.diagnosis.places import block_places, module_places
from fno_telemetry.records import CaptureRecord


def _without_activations() -> CaptureRecord:
    record = healthy_record()
    return replace(record, modules=tuple(each for each in record.modules if each.role != "activation"))


@rule(about="values", fires_on=_without_activations, silent_on=healthy_record)
def linear_network(record: CaptureRecord, *, least_blocks: float = 2) -> Iterator[Symptom]:
    """The network has no activation function, so that all of its layers together are one linear layer.

    Formula: no layer of the record has the role activation, and there are `least_blocks` (2) blocks or more.
        Functions such as `torch.relu` count.
    Default: `least_blocks` is 2: one linear block is a linear model on purpose, several are not.
    False alarm when: the network multiplies tensors instead, as in attention, or only some layers were
        captured.
    """
    blocks = block_places(record)
    if len(blocks) < least_blocks or any(place.role == "activation" for place in module_places(record)):
        return
    yield Symptom(
        severity="warning",
        message=f"has no activation function: {len(blocks)} blocks, and all of them together are linear",
        evidence={"blocks": len(blocks), "activations": 0},
        advice="An activation function is probably missing in the forward: put a GELU after the sum of each "
        "block but the last, and one between the layers of lifting and projection.",
        confirm="doubling the input doubles the output of a linear network exactly.",
    )
