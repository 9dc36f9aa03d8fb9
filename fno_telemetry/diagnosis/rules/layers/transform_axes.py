"""Finds transforms that run over the channels."""

import re
from collections.abc import Iterator
from dataclasses import replace

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import healthy_record
from fno_telemetry.diagnosis.places import module_places
from fno_telemetry.diagnosis.wording import join_names
from fno_telemetry.records import CaptureRecord

_CHANNELS_FIRST = re.compile(r"(Lazy)?Conv(Transpose)?[123]d|BatchNorm[123]d|InstanceNorm[123]d")


def _over(*axes: int) -> CaptureRecord:
    record = healthy_record()
    modules = [replace(module, spatial_axes=axes) for module in record.modules]
    return replace(record, modules=tuple(modules))


@rule(about="values", fires_on=lambda: _over(1, 3), silent_on=lambda: _over(2, 3))
def transform_axes(record: CaptureRecord) -> Iterator[Symptom]:
    """The Fourier transforms of the network run over its channels.

    Formula: there is a spectral layer, and the axes over which the network transforms include axis 1 in the
        output of a convolution, a batch norm or an instance norm, where that is the axis of the channels.
    Default: there is no threshold. Convolutions of torch have their channels in axis 1.
    False alarm when: channels are a physical axis on purpose, such as times, and are transformed too.
    """
    places = module_places(record)
    spectral = [place for place in places if place.role == "spectral"]
    over = [
        place
        for place in places
        if _CHANNELS_FIRST.fullmatch(place.entry.class_name)
        and len(place.entry.shape) == int(place.entry.class_name[-2]) + 2
        and 1 in place.entry.spatial_axes
    ]
    if not spectral or not over:
        return
    axes = join_names([str(axis) for axis in over[0].entry.spatial_axes])
    yield Symptom(
        severity="warning",
        place=spectral[0],
        message=f"transforms over the wrong axes: axis 1 is among those of the transforms ({axes}), but "
        f"in {over[0].name} ({over[0].entry.class_name}) it is the axis of the channels",
        evidence={"layers": len(over), "axes": axes, "shape": str(over[0].entry.shape)},
        advice="`dim` of the Fourier transform was probably made for another layout, such as channels last: "
        "give it the spatial axes, `dim=(-2, -1)` for (B, C, H, W), or move the channels first.",
        confirm="shifting an input along an axis should shift the output of the layer along that axis.",
        explains=Consequences(about=("accuracy",)),
    )
