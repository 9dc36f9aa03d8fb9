"""Finds spectral layers that keep one half of the frequency plane."""

from collections.abc import Iterator
from statistics import median
from typing import Any

from fno_telemetry.diagnosis.contract import Symptom, rule
from fno_telemetry.diagnosis.example_records import change_module, healthy_record
from fno_telemetry.diagnosis.places import Place, find_counterpart, module_places, select_defined
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord


@rule(
    about="values",
    fires_on=lambda: change_module(healthy_record(), "blocks.1.spectral", one_sidedness=1e-14),
    silent_on=lambda: change_module(healthy_record(), "blocks.1.spectral", one_sidedness=0.1),
)
def one_sided_spectrum(
    record: CaptureRecord, *, baseline: CaptureRecord | None = None, limit: float = 0.02, usual: float = 0.2
) -> Iterator[Symptom]:
    """A spectral layer returns waves of one direction only: their mirror images are missing.

    Formula: let q be one_sidedness = (energy at negative frequencies) / (energy at positive frequencies)
        along the first spatial axis. q <= `limit` (0.02) or q >= 1 / `limit` (50). This is a warning if
        (1) the baseline contains the layer, and q there is between `usual` (0.2) and 1 / `usual` (5); or
        (2) there are other spectral layers, q of all of them is between `usual` and 1 / `usual`, and the
            layer does not change the resolution.
        Otherwise it is a note, because many layers are one-sided by design.
    Default: `limit` is 0.02 and `usual` is 0.2. q of a layer with both directions is about 1 (0.3 to 3 in
        healthy networks), and q of a layer that keeps positive frequencies only is 1e-14. In UNO, the layers
        that change the resolution also keep only one direction.
    False alarm when: the field itself moves in one direction.
    """
    found = [
        (place, value)
        for place, value in select_defined(module_places(record), "one_sidedness")
        if place.role == "spectral"
    ]
    values = [value for _, value in found]
    for index, (place, value) in enumerate(found):
        if limit < value < 1 / limit:
            continue
        known = find_counterpart(place, baseline, module_places)
        before = known.value("one_sidedness") if known is not None else None
        rest = [*values[:index], *values[index + 1 :]]
        two_sided = [usual < other < 1 / usual for other in rest]
        alone = bool(rest) and all(two_sided) and not _changes_resolution(place, record)
        unusual = (before is not None and usual < before < 1 / usual) or alone
        yield Symptom(
            severity="warning" if unusual else "note",
            place=place,
            message="passes waves of one direction only: the energy at negative frequencies, divided by that "
            f"at positive ones, is {format_number(value)} (expected: {format_number(limit)} to "
            f"{format_number(1 / limit)})",
            evidence={
                "one_sidedness": value,
                "of_the_other_layers": median(rest) if rest else None,
                "of_the_baseline": before,
            },
            advice="Weights for negative frequencies are probably missing: for a real field, the layer needs "
            "them along every spatial axis except the last one.",
        )


def _changes_resolution(place: Place[Any], record: CaptureRecord) -> bool:
    """Whether the layer that ran before had another resolution."""
    before = [other.entry for other in module_places(record) if other.position < place.position]
    sizes = [tuple(entry.shape[axis] for axis in entry.spatial_axes) for entry in (*before, place.entry)]
    return len(sizes) > 1 and sizes[-2] != sizes[-1]
