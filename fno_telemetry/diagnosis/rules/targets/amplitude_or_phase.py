"""Finds outputs with the spectrum of the target at the wrong places."""

from collections.abc import Iterator
from dataclasses import replace

from fno_telemetry.comparison.learning import is_untrained
from fno_telemetry.diagnosis.contract import Symptom, rule
from fno_telemetry.diagnosis.example_records import add_target, healthy_record
from fno_telemetry.diagnosis.places import output_place
from fno_telemetry.diagnosis.wording import format_number, format_percent
from fno_telemetry.records import CaptureRecord


def _at_wrong_places() -> CaptureRecord:

    record = add_target(healthy_record())
    accuracy = record.accuracy
    if accuracy is None or accuracy.bands is None:
        raise ValueError("the record has no bands")
    bands = replace(accuracy.bands, error=(0.0, 0.8, 0.6, 0.4, 0.2))
    return replace(record, accuracy=replace(accuracy, bands=bands))


@rule(
    about="accuracy",
    needs=("target",),
    fires_on=_at_wrong_places,
    silent_on=lambda: add_target(healthy_record(), (1.0, 1.0, 0.3, 0.1)),
)
def amplitude_or_phase(
    record: CaptureRecord,
    *,
    least_share: float = 0.1,
    near: float = 0.5,
    coherence: float = 0.3,
) -> Iterator[Symptom]:
    """The output has the spectrum of the target, but its structures are at other places.

    The error of a band splits exactly into one of size and one of place: with E and E' the energies of output
    and target and c their coherence, (√E - √E')² + 2 √(E E') (1 - c).

    Formula: of the octaves that hold at least `least_share` (0.1) of the target's energy without the mean,
        those with half of that energy or more have both
        (1) a spectrum_ratio of at least `near` (0.5), at most 1 / `near`;
        (2) a band_coherence of at most `coherence` (0.3).
    Default: trained healthy networks had a coherence of 0.6 and more wherever their output was as large as
        the target.
    False alarm when: a generative network is to make other samples of the same kind.
    """
    end = output_place(record)
    bands = record.accuracy.bands if record.accuracy is not None else None
    if end is None or bands is None or is_untrained(record):
        return
    octaves = bands.pool()
    total = sum(octaves.target[1:])
    judged = [
        index
        for index in range(1, len(octaves.target))
        if total and octaves.target[index] >= least_share * total
    ]
    moved = [
        index
        for index in judged
        if (ratio := octaves.spectrum_ratio[index]) is not None
        and near <= ratio <= 1 / near
        and (found := octaves.band_coherence[index]) is not None
        and found <= coherence
    ]
    share = sum(octaves.target[index] for index in moved) / total if total else 0.0
    if share < 0.5:
        return
    worst = min(octaves.band_coherence[index] or 0.0 for index in moved)
    ratio = sum(octaves.output[index] for index in moved) / sum(octaves.target[index] for index in moved)
    yield Symptom(
        severity="warning",
        place=end,
        message=f"has the amplitudes of the target, but not its phases: in {format_percent(share)} of the "
        f"target's energy the size is right ({format_number(ratio)}), the coherence down to "
        f"{format_number(worst)}",
        evidence={"share_of_target": share, "spectrum_ratio": ratio, "lowest_band_coherence": worst},
        advice="The loss probably sees amplitudes only, such as |y| or a power spectrum, or output and "
        "target are shifted, flipped or transposed against each other: compare both as they are, "
        "complex or with sign, and plot one sample of each.",
        confirm="the error of one sample should fall when the output is shifted, flipped or transposed.",
    )
