"""Finds statistics that rise or fall over a run."""

from collections.abc import Iterator, Sequence
from typing import Any

from fno_telemetry.comparison.trends import Trend, series_of
from fno_telemetry.diagnosis.contract import Symptom, rule
from fno_telemetry.diagnosis.example_records import change_module, healthy_record, make_series
from fno_telemetry.diagnosis.places import Place, block_places, module_places
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.keys import record_key
from fno_telemetry.records import CaptureRecord

_FALLING = ("sample_variation", "spectral_share", "update_ratio")


def _variations(*variations: float) -> list[CaptureRecord]:
    return make_series(
        *(change_module(healthy_record(), "blocks.1.local", sample_variation=value) for value in variations)
    )


@rule(
    about="steps",
    fires_on=lambda: _variations(0.9, 0.6, 0.4),
    silent_on=lambda: _variations(0.9, 0.6, 0.9),
)
def trend(
    series: Sequence[CaptureRecord],
    *,
    least_change: float = 0.2,
    lost: float = 0.1,
    dead: float = 0.2,
) -> Iterator[Symptom]:
    """A statistic of a layer rises or falls steadily over the steps.

    Formula: Kendall's tau between steps and values is 0.9 or more (or -0.9 or less) and the value changed by
    least_change of its larger end; for each statistic, the layer that changed most. A note; a warning where a
    sample variation, spectral share or update fell to the share lost, or dead channels rose by dead.
    Default: least_change 0.2, lost 0.1 and dead 0.2, so that learning itself stays a note.
    Wrong when: a schedule does this on purpose, such as modes that are switched on.
    """
    if len(series) < 3:
        return
    last = series[-1]
    there: list[Place[Any]] = [*module_places(last), *block_places(last)]
    by_key = {record_key("", place.entry): place for place in there}
    strongest: dict[tuple[str, bool], tuple[float, Trend, Place[Any]]] = {}
    for found in series_of(series, least_change).trends:
        statistic, _, key_place = found.key.partition("/")
        place = by_key.get(f"/{key_place}")
        if place is None:
            continue
        change = abs(found.last - found.first) / max(abs(found.first), abs(found.last))
        key = (statistic, _is_warning(statistic, found, lost, dead))
        if key not in strongest or change > strongest[key][0]:
            strongest[key] = (change, found, place)
    for (statistic, warned), (_, found, place) in strongest.items():
        direction = "rises" if found.last > found.first else "falls"
        yield Symptom(
            severity="warning" if warned else "note",
            record=last,
            place=place,
            message=f"has a {statistic} that {direction} steadily from {format_number(found.first)} to "
            f"{format_number(found.last)} over the steps",
            evidence={"first": found.first, "last": found.last, "kendall_tau": found.kendall_tau},
            advice="Often this is learning itself: compare it with the loss; a change while the loss falls "
            "is learning, a change without it is a fault.",
        )


def _is_warning(statistic: str, found: Trend, lost: float, dead: float) -> bool:
    if statistic == "dead_channel_fraction":
        return found.last - found.first >= dead
    return statistic in _FALLING and found.last <= lost * found.first
