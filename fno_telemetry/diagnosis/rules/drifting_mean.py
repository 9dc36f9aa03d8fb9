"""Values that drift away from zero."""

from collections.abc import Iterator
from typing import Any

from fno_telemetry.diagnosis.contract import Symptom
from fno_telemetry.diagnosis.sites import Site, counterpart, module_sites
from fno_telemetry.diagnosis.wording import digits
from fno_telemetry.records import CaptureRecord

_END = frozenset({"projection", "activation"})


def drifting_mean(
    record: CaptureRecord,
    *,
    baseline: CaptureRecord | None = None,
    of_std: float = 10,
    of_baseline: float = 5,
) -> Iterator[Symptom]:
    """The signed mean of a layer has grown far beyond the spread of its values.

    Formula: |mean| >= of_std times std in a layer with weights and spatial axes; from the baseline's on,
    |mean| / std >= of_baseline times as much and >= 1. Projections are left out: their bias may be all that
    is left.
    Default: of_std 10. Healthy layers before the projection had at most 3.
    Wrong when: the data are far from zero, such as temperatures in kelvin, and nothing normalises them.
    """
    projecting = {site.entry.name for site in module_sites(record) if site.role == "projection"}
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
        if drift >= of_std or since:
            yield Symptom(
                severity="warning",
                site=site,
                message=f"drifts: its mean is {digits(drift)} times its spread",
                evidence={"mean": mean, "std": std}
                | ({"of_the_baseline": before} if before is not None else {}),
                advice="Look at its bias; a norm before this layer, or a lower rate, keeps it near zero.",
                explains=frozenset(
                    {"drifting_mean", "saturated_activation", "input_independent", "constant_output"}
                ),
            )


def _drift(site: Site[Any]) -> float | None:
    mean, std = site.value("mean"), site.value("std")
    return None if mean is None or not std else abs(mean) / std
