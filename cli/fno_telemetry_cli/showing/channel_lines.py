"""Lines about the channels and samples of what goes into a model, what comes out of it, and its target."""

from collections.abc import Iterator

import fno_telemetry as ft
from fno_telemetry.records import Value, place_name
from fno_telemetry.wording import format_number, format_percent

_MOST_LISTED = 8  # channels; of more, the ends are told


def channel_lines(record: ft.CaptureRecord) -> Iterator[str]:
    """Yield a line for each input, output and target with several channels, or with samples that are zero."""
    targets = () if record.target is None else (record.target,)
    for name, tensors in (("input", record.inputs), ("output", record.outputs), ("target", targets)):
        for tensor in tensors:
            told = [*_sizes(tensor), *_zero_samples(tensor)]
            if told:
                yield f"{place_name(name, 0, tensor.item)}: {'; '.join(told)}"


def _sizes(tensor: ft.TensorRecord) -> Iterator[str]:
    sizes = tensor.channel_rms
    if sizes is None or len(sizes) < 2:
        return
    if len(sizes) <= _MOST_LISTED:
        yield f"rms of the channels {', '.join(map(_number, sizes))}"
    else:
        ends = (tensor.stats.get("channel_rms_min"), tensor.stats.get("channel_rms_max"))
        yield f"rms of {len(sizes)} channels from {' to '.join(map(_number, ends))}"


def _zero_samples(tensor: ft.TensorRecord) -> Iterator[str]:
    share = tensor.stats.get("zero_sample_fraction")
    if share:
        yield f"{format_percent(share)} of the samples are zero everywhere"


def _number(value: Value) -> str:
    return "–" if value is None else format_number(value)
