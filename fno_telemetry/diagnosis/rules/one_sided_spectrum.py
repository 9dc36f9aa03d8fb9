"""Spectral layers that keep one half of the plane."""

from collections.abc import Iterator
from statistics import median
from typing import Any

from fno_telemetry.diagnosis.contract import Symptom
from fno_telemetry.diagnosis.places import Place, counterpart, module_places, select_defined
from fno_telemetry.diagnosis.wording import digits
from fno_telemetry.records import CaptureRecord


def one_sided_spectrum(
    record: CaptureRecord, *, baseline: CaptureRecord | None = None, limit: float = 0.02, usual: float = 0.2
) -> Iterator[Symptom]:
    """A spectral layer returns waves of one direction only: its mirror images are missing.

    Formula: one_sidedness, the energy at negative over that at positive frequencies of the first axis, <=
    limit or >= 1 / limit. A warning where every other spectral layer, or the baseline, is between usual and
    1 / usual; else, and where the layer changes the resolution, a note: many are so by design.
    Default: 0.02 and 0.2. A two-sided layer reads about 1 (0.3 to 3 in healthy networks), one that keeps
    positive frequencies only reads 1e-14. So do layers of UNO that change the resolution.
    Wrong when: the field itself moves in one direction.
    """
    found = [
        (s, v) for s, v in select_defined(module_places(record), "one_sidedness") if s.role == "spectral"
    ]
    values = [value for _, value in found]
    for index, (place, value) in enumerate(found):
        if limit < value < 1 / limit:
            continue
        known = counterpart(place, baseline, module_places)
        before = known.value("one_sidedness") if known is not None else None
        rest = [*values[:index], *values[index + 1 :]]
        two_sided = [usual < other < 1 / usual for other in rest]
        alone = bool(rest) and all(two_sided) and not _resamples(place, record)
        unusual = (before is not None and usual < before < 1 / usual) or alone
        yield Symptom(
            severity="warning" if unusual else "note",
            place=place,
            message=f"passes waves of one direction only ({digits(value)} times as much of the other)",
            evidence={
                "one_sidedness": value,
                "of_the_other_layers": median(rest) if rest else None,
                "of_the_baseline": before,
            },
            advice="A real field needs weights for negative frequencies of all axes but the last.",
        )


def _resamples(place: Place[Any], record: CaptureRecord) -> bool:
    """Whether the layer that ran before had fields of another size."""
    before = [other.entry for other in module_places(record) if other.position < place.position]
    sizes = [tuple(entry.shape[axis] for axis in entry.spatial_axes) for entry in (*before, place.entry)]
    return len(sizes) > 1 and sizes[-2] != sizes[-1]
