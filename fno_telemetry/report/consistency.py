"""What in a record has to fit together, beyond what a schema can say."""

import operator
from collections import Counter
from collections.abc import Sequence
from itertools import chain

from fno_telemetry.errors import ReportError
from fno_telemetry.quantities import look_up
from fno_telemetry.records import (
    BandAccuracy,
    CaptureRecord,
    Histogram,
    LogHistogram,
    ModuleRecord,
    TensorRecord,
    place_name,
)


def check_consistency(record: CaptureRecord) -> None:
    """Raise ReportError where sizes do not fit together, or one place has two entries."""
    sides = [side for side in (record.input, record.output, record.target) if side is not None]
    tensors: list[TensorRecord] = [*sides, *record.inputs, *record.outputs, *record.modules]
    for tensor in tensors:
        if (part := _find_misfit(tensor)) is not None:
            name = tensor.place if isinstance(tensor, ModuleRecord) else "an input or output"
            name = "the target" if tensor is record.target else name
            raise ReportError(f"sizes in {part} of {name} do not fit together")
    for kind, places in (
        ("modules", Counter((module.name, module.call, module.item) for module in record.modules)),
        ("blocks", Counter((block.name, block.call, None) for block in record.blocks)),
        ("parameters", Counter((parameter.name, 0, None) for parameter in record.parameters)),
    ):
        for place, count in places.items():
            if count > 1:
                raise ReportError(f"{kind} has {place_name(*place)} {count} times")
    bands = None if record.accuracy is None else record.accuracy.bands
    if bands is not None and not _are_alike(bands):
        raise ReportError("sizes in bands of the accuracy do not fit together")
    orders = (record.accuracy.orders if record.accuracy is not None else None) or ()
    if not all(sorted(each.axes) == list(range(len(each.flipped))) for each in orders):
        raise ReportError("axes in orders of the accuracy do not fit together")
    resolution = record.resolution
    if resolution is not None and (
        len(resolution.sizes) != len(resolution.of_sizes)
        or len(resolution.band_edges) != len(resolution.differences)
        or not _ascend(resolution.band_edges)
    ):
        raise ReportError("sizes in resolution do not fit together")
    # Of a name that no view can show, this raises OptionError.
    stats = [entry.stats for entry in tensors]
    stats += [block.stats for block in record.blocks] + [one.stats for one in record.parameters]
    stats += [record.accuracy.stats] if record.accuracy is not None else []
    look_up(chain.from_iterable(stats), record.quantities)


def _find_misfit(tensor: TensorRecord) -> str | None:
    """Return the part of the record of a tensor in which sizes do not fit together; None if all do."""
    if any(axis >= len(tensor.shape) for axis in tensor.spatial_axes):
        return "spatial_axes"
    for name in ("histogram", "log_histogram"):
        bins: Histogram | LogHistogram | None = getattr(tensor, name)
        if bins is not None and not _are_bins(bins.edges, bins.counts):
            return name
    spectrum = tensor.spectrum
    if spectrum is not None and not (
        len(spectrum.axis_bands) == len(spectrum.sizes)
        and _are_bins(spectrum.band_edges, spectrum.bands)
        and all(_are_bins(spectrum.axis_band_edges, bands) for bands in spectrum.axis_bands)
    ):
        return "spectrum"
    energy = tensor.mode_energy if isinstance(tensor, ModuleRecord) else None
    if energy is not None and energy.sizes != tuple(map(len, energy.axis_shares)):
        return "mode_energy"
    return None


def _are_alike(bands: BandAccuracy) -> bool:
    ratios = (bands.band_error, bands.spectrum_ratio, bands.band_coherence)
    lengths = {len(row) for row in (bands.band_edges, bands.target, bands.output, bands.error, *ratios)}
    return len(lengths) == 1 and _ascend(bands.band_edges)


def _are_bins(edges: Sequence[float], values: Sequence[float]) -> bool:
    return len(edges) == len(values) + 1 and _ascend(edges)


def _ascend(edges: Sequence[float]) -> bool:
    return all(map(operator.le, edges, edges[1:]))
