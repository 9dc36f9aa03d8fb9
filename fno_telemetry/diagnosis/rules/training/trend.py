"""Finds statistics that rise or fall over a run."""

from collections.abc import Iterator, Sequence
from typing import Any

from fno_telemetry.comparison.changes import VARIATION, varies_as_much
from fno_telemetry.comparison.learning import shows_learning
from fno_telemetry.comparison.trends import Trend, collect_columns, find_trends
from fno_telemetry.diagnosis.contract import Symptom, rule
from fno_telemetry.diagnosis.example_records import change_module, healthy_record, make_series
from fno_telemetry.diagnosis.places import Place, block_places, find_counterpart, module_places
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

    Formula: all of
        (1) Kendall's tau between steps and values is >= 0.9 or <= -0.9;
        (2) |last - first| >= `least_change` (0.2) · max(|first|, |last|);
        (3) no single step makes more than 80 % of the change.
        For each statistic, only the layer that changed most is reported. The finding is a warning if a
        sample_variation, spectral_share or update_ratio fell to `lost` (0.1) times its first value or less,
        or if dead_channel_fraction rose by `dead` (0.2) or more. Otherwise it is a note. The first reports
        are left out of this if the network learned most of what it knows after them: the sample_variation
        of the output at least doubled, the loss fell to half, or the rms of the output grew by a factor of 5
        or more to the scale of the input. A sample_variation is no warning if the samples still differ by
        half as much as before in the unit of the values.
    Default: `least_change` is 0.2, `lost` is 0.1 and `dead` is 0.2, so that normal learning gives only notes.
    False alarm when: a schedule changes the statistic on purpose, for example by switching on modes one after
        another.
    """
    if len(series) < 3:
        return
    last = series[-1]
    there: list[Place[Any]] = [*module_places(last), *block_places(last)]
    by_key = {record_key("", place.entry): place for place in there}
    columns = collect_columns(series)
    learned = next(index for index, record in enumerate(series) if not shows_learning(record, last))
    settled = {found.key: found for found in find_trends(columns, least_change, learned)}
    strongest: dict[tuple[str, bool], tuple[float, Trend, Place[Any]]] = {}
    for found in find_trends(columns, least_change):
        statistic, _, key_place = found.key.partition("/")
        place = by_key.get(f"/{key_place}")
        if place is None:
            continue
        change = abs(found.last - found.first) / max(abs(found.first), abs(found.last))
        since = settled.get(found.key)
        warned = since is not None and _is_warning(statistic, since, lost, dead)
        if warned and statistic == VARIATION:
            before = find_counterpart(place, series[learned], module_places)
            warned = before is None or not varies_as_much(before.entry, place.entry)
        key = (statistic, warned)
        if key not in strongest or change > strongest[key][0]:
            strongest[key] = (change, found, place)
    for (statistic, warned), (_, found, place) in strongest.items():
        direction = "rise" if found.last > found.first else "fall"
        yield Symptom(
            severity="warning" if warned else "note",
            record=last,
            place=place,
            message=f"shows a steady {direction} of its {statistic} over the steps, from "
            f"{format_number(found.first)} to {format_number(found.last)}",
            evidence={"first": found.first, "last": found.last, "kendall_tau": found.kendall_tau},
            advice="Such a change is often normal learning: compare it with the loss. If the loss falls at "
            "the same time, it is learning; if the loss does not fall, it is a fault.",
        )


def _is_warning(statistic: str, found: Trend, lost: float, dead: float) -> bool:
    if statistic == "dead_channel_fraction":
        return found.last - found.first >= dead
    return statistic in _FALLING and found.last <= lost * found.first
