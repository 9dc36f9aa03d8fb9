"""Values that drift away from zero."""

from collections.abc import Iterator
from typing import Any

from fno_telemetry.diagnosis.contract import OF_VALUES, Symptom
from fno_telemetry.diagnosis.places import Site, counterpart, module_sites, stated, tensor_sites, usual_before
from fno_telemetry.diagnosis.wording import digits
from fno_telemetry.records import CaptureRecord

_END = frozenset({"projection", "activation"})


def drifting_mean(
    record: CaptureRecord,
    *,
    baseline: CaptureRecord | None = None,
    of_std: float = 10,
    of_size: float = 5,
    of_baseline: float = 5,
) -> Iterator[Symptom]:
    """The signed mean of a layer has grown far beyond the spread of its values.

    Formula: |mean| >= of_std times std and >= of_size times the median rms of the input and of the layers
    before, in a layer with weights and spatial axes; from the baseline's on, |mean| / std >= of_baseline
    times as much and >= 1. Projections are left out: their bias may be all that is left.
    Default: of_std 10, of_size 5, of_baseline 5. Untrained layers that hardly vary had means of 80 times
    their spread, but none was larger than what came before.
    Wrong when: the data are far from zero, such as temperatures in kelvin, and nothing normalises them.
    """
    projecting = {site.entry.name for site in module_sites(record) if site.role == "projection"}
    sizes = stated(tensor_sites(record), "rms")
    usual = dict(zip((site.place for site, _ in sizes), usual_before([rms for _, rms in sizes]), strict=True))
    for site in module_sites(record):
        mean, std = site.value("mean"), site.value("std")
        if mean is None or not std or "weight_norm" not in site.entry.stats or not site.entry.spatial_axes:
            continue
        parent = str(getattr(site.entry, "parent", None) or "")
        if site.role in _END or parent in projecting:
            continue
        drift = abs(mean) / std
        known = counterpart(site, baseline, module_sites)
        before = _drift(known) if known is not None else None
        since = before is not None and drift >= 1 and drift >= of_baseline * before
        size = usual.get(site.place)
        if since or (before is None and drift >= of_std and size is not None and abs(mean) >= of_size * size):
            yield Symptom(
                severity="warning",
                site=site,
                message=f"drifts: its mean is {digits(drift)} times its spread",
                evidence={"mean": mean, "std": std, "median_rms_before": size, "of_the_baseline": before},
                advice="Look at its bias; a norm before this layer, or a lower rate, keeps it near zero.",
                explains=OF_VALUES,
            )


def _drift(site: Site[Any]) -> float | None:
    mean, std = site.value("mean"), site.value("std")
    return None if mean is None or not std else abs(mean) / std
