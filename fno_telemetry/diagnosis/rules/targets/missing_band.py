"""Finds frequencies of the target that the output does not have, and the layer where they are lost."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from fno_telemetry.comparison.learning import is_untrained
from fno_telemetry.diagnosis.band_shares import share_above
from fno_telemetry.diagnosis.contract import Symptom, rule
from fno_telemetry.diagnosis.example_records import add_target, healthy_record
from fno_telemetry.diagnosis.places import Place, block_places, module_places, output_place
from fno_telemetry.diagnosis.wording import format_number, format_percent
from fno_telemetry.records import LEAST_RATIO, BandAccuracy, CaptureRecord

_SIDES = ("in", "out")


@rule(
    about="accuracy",
    needs=("target",),
    fires_on=lambda: add_target(healthy_record(), (1.0, 1.0, 0.01, 0.0)),
    silent_on=lambda: add_target(healthy_record(), (1.0, 1.0, 0.6, 0.6)),
)
def missing_band(
    record: CaptureRecord,
    *,
    least_share: float = 0.01,
    lost_share: float = 0.15,
    missing: float = 0.12,
    present: float = 0.5,
    alike: float = 0.5,
    of_error: float = 0.2,
    lost_in_block: float = 0.2,
    smoothed: float = 0.6,
) -> Iterator[Symptom]:
    """The output lacks frequencies that the target has, although it has others.

    Formula: of the bands of one octave that hold at least `least_share` (0.01) of the target's energy without
        the mean, let r be spectrum_ratio, the energy of the output over that of the target. All of
        (1) r <= `missing` (0.12) in some of them, which hold at least `lost_share` (0.15) of that energy;
        (2) r >= `present` (0.5) and band_coherence >= `alike` (0.5) in another one, so that the output has
            learned something: noise has energy too;
        (3) the bands of (1) hold at least `of_error` (0.2) of the energy of the error.
        The place is the block after which these frequencies are lost, if one of them leaves a share of its
        energy there that is at most `lost_in_block` (0.2) of what entered it; or else a layer without weights
        after the last block, such as a pooling, that leaves at most `smoothed` (0.6) of it; otherwise it is
        the output. Without such a block or layer it is a note: a network that still learns, or a target that
        its input does not determine, looks the same.
    Default: in most trained healthy networks bands with r <= 0.12 held at most 0.035 of the energy of the
        target, but 0.3 where it has much fine structure, which is learned last. No block of half-trained ones
        lost them. `least_share` is 0.01: less is not seen in the error.
    False alarm when: the frequencies are noise of the target, which no network can predict.
    """
    end = output_place(record)
    bands = record.accuracy.bands if record.accuracy is not None else None
    if end is None or bands is None or is_untrained(record):
        return
    octaves = bands.pool()
    total, error = sum(octaves.target[1:]), sum(octaves.error)
    if not total or not error:
        return
    judged = [
        (index, ratio)
        for index, ratio in enumerate(octaves.spectrum_ratio)
        if index and ratio is not None and octaves.target[index] >= least_share * total
    ]
    lost = [index for index, ratio in judged if ratio <= missing]
    learned = [
        index
        for index, ratio in judged
        if ratio >= present and (octaves.band_coherence[index] or 0.0) >= alike
    ]
    if not lost or not learned:
        return
    if sum(octaves.target[index] for index in lost) < lost_share * total:
        return
    share_of_error = sum(octaves.error[index] for index in lost) / error
    if share_of_error < of_error:
        return
    lost = _find_widest(octaves, lost)
    ratio = sum(octaves.output[index] for index in lost) / sum(octaves.target[index] for index in lost)
    place = _find_block(record, lost_in_block)
    before, after = (place.value(f"missing_band_{side}") if place is not None else None for side in _SIDES)
    if place is None and (smoother := _find_smoother(record, _find_start(octaves, lost[0]), smoothed)):
        place, before, after = smoother
    is_lost = place is not None
    yield Symptom(
        severity="warning" if is_lost else "note",
        place=place or end,
        message=f"{'loses' if is_lost else 'lacks'} frequencies of the target: the output has "
        f"{format_percent(ratio)} of the target's energy {_spell(octaves, lost)}"
        + ("; they are lost here" if is_lost else ""),
        evidence={
            "spectrum_ratio": ratio,
            "share_of_error": share_of_error,
            "share_of_target": sum(octaves.target[index] for index in lost) / total,
            "from_frequency": octaves.band_edges[lost[0] - 1],
            "to_frequency": octaves.band_edges[lost[-1]],
            "missing_band_in": before,
            "missing_band_out": after,
        },
        advice="There are probably too few modes for the target, or something smooths: raise the number of "
        "modes of the spectral layers, check that the local branch passes fine structure, and look for "
        "pooling, interpolation or strong dropout.",
        confirm="`spectrum_ratio` of these bands should rise when the number of modes is doubled.",
    )


def _find_widest(bands: BandAccuracy, lost: Sequence[int]) -> list[int]:
    """Return those of the lost bands that are side by side and together have the largest error."""
    sides: list[list[int]] = []
    for index in lost:
        if sides and index == sides[-1][-1] + 1:
            sides[-1].append(index)
        else:
            sides.append([index])
    return max(sides, key=lambda side: sum(bands.error[index] for index in side))


def _find_block(record: CaptureRecord, lost: float) -> Place[Any] | None:
    """Return the block in which the share of the missing bands falls most, if it falls far enough."""
    falls = []
    for place in block_places(record):
        before, after = place.value("missing_band_in"), place.value("missing_band_out")
        if before and after is not None and after <= lost * before:
            falls.append((after / before, place))
    return min(falls, key=lambda pair: pair[0])[1] if falls else None


def _find_start(bands: BandAccuracy, lost: int) -> float:
    """Return the frequency from which on, up to a lost band, less than half of the energy is there."""
    while lost > 1 and (bands.spectrum_ratio[lost - 1] or 1.0) < LEAST_RATIO:
        lost -= 1
    return bands.band_edges[lost - 1]


def _find_smoother(
    record: CaptureRecord, from_frequency: float, left: float
) -> tuple[Place[Any], float, float] | None:
    """Return the layer after the last block that smooths most, with the shares before and after it.

    It has no weights, follows a layer of the same parent with as many channels and points, and leaves at most
    `left` of the share of the energy above the frequency.
    """
    start = max((place.position for place in block_places(record)), default=math.inf)
    found = []
    for before, place in pairwise(module_places(record)):
        one, other = before.entry, place.entry
        if (
            place.position > start
            and one.parent == other.parent
            and one.shape == other.shape
            and other.role != "activation"
            and other.stats.get("weight_norm") is None
        ):
            entering, leaving = (
                share_above(one.spectrum, from_frequency),
                share_above(other.spectrum, from_frequency),
            )
            if entering and leaving is not None and leaving <= left * entering:
                found.append((leaving / entering, place, entering, leaving))
    return min(found, key=lambda each: each[0])[1:] if found else None


def _spell(bands: BandAccuracy, lost: Sequence[int]) -> str:
    low, high = bands.band_edges[lost[0] - 1], bands.band_edges[lost[-1]]
    if lost[-1] == len(bands.band_edges) - 1:
        return f"above {format_number(low)} cycles per grid point"
    return f"between {format_number(low)} and {format_number(high)} cycles per grid point"
