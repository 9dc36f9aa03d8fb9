"""Finds outputs with the spectrum of the target at the wrong places."""

from collections.abc import Iterator
from dataclasses import replace

from fno_telemetry.comparison.learning import is_untrained
from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import add_target, healthy_record
from fno_telemetry.diagnosis.places import output_place, target_place
from fno_telemetry.diagnosis.wording import format_number, format_percent
from fno_telemetry.records import BandAccuracy, CaptureRecord


def _at_wrong_places() -> CaptureRecord:

    record = add_target(healthy_record())
    accuracy = record.accuracy
    if accuracy is None or accuracy.bands is None:
        raise ValueError("the record has no bands")
    bands = replace(accuracy.bands, error=(0.0, 0.8, 0.6, 0.4, 0.2))
    return replace(record, accuracy=replace(accuracy, bands=bands))


@rule(
    about="accuracy",
    yields=1,
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
    same_size: float = 0.8,
    missed: float = 1.2,
) -> Iterator[Symptom]:
    """The output has the spectrum of the target, but its structures are at other places.

    The error of a band splits exactly into one of size and one of place: with E and E' the energies of output
    and target and c their coherence, (√E - √E')² + 2 √(E E') (1 - c).

    Formula: the record is not of an untrained network. One of two. Of the octaves that hold at least
        `least_share` (0.1) of the target's energy without the mean, those with half of that energy or more
        have both
        (1) a spectrum_ratio of at least `near` (0.5), at most 1 / `near`;
        (2) a band_coherence of at most `coherence` (0.3).
        Or, where the target is complex: output_to_target_rms is between `same_size` (0.8) and its inverse,
        while the error is at least `missed` (1.2) times that of predicting the mean.
    Default: trained healthy networks had a coherence of 0.6 and more wherever their output was as large as
        the target. `missed` is 1.2: networks that have only begun to learn may have the right size by chance,
        with an error of about 1.
    False alarm when: a generative network is to make other samples of the same kind.
    """
    end, target = output_place(record), target_place(record)
    accuracy = record.accuracy
    if end is None or target is None or accuracy is None or is_untrained(record):
        return
    size, error = (accuracy.stats.get(name) for name in ("output_to_target_rms", "error_to_mean_predictor"))
    in_bands = None if accuracy.bands is None else _find_moved(accuracy.bands, least_share, near, coherence)
    if in_bands is not None:
        share, ratio, worst = in_bands
        message = f"has the amplitudes of the target, but not its phases: in {format_percent(share)} of the "
        message += f"target's energy the size is right ({format_number(ratio)}), the coherence down to "
        message += format_number(worst)
        evidence = {"share_of_target": share, "spectrum_ratio": ratio, "lowest_band_coherence": worst}
    elif (
        target.entry.values_of == "|z|"
        and size is not None
        and error is not None
        and same_size <= size <= 1 / same_size
        and error >= missed
    ):
        message = "has the amplitudes of the target, but not its phases: its rms is "
        message += f"{format_number(size)} times that of the target, its error {format_number(error)} times "
        message += "that of predicting the mean"
        evidence = {"output_to_target_rms": size, "error_to_mean_predictor": error}
    else:
        return
    yield Symptom(
        severity="warning",
        place=end,
        message=message,
        evidence=evidence,
        advice="The loss probably sees amplitudes only, such as |y| or a power spectrum, or output and "
        "target are shifted, flipped or transposed against each other: compare both as they are, "
        "complex or with sign, and plot one sample of each.",
        confirm="the error of one sample should fall when the output is shifted, flipped or transposed.",
        explains=Consequences(about=("accuracy",)),
    )


def _find_moved(
    bands: BandAccuracy, least_share: float, near: float, coherence: float
) -> tuple[float, float, float] | None:
    """Return of the octaves with the size of the target but not its places: share, ratio, least coherence.

    None where they hold less than half of the target's energy.
    """
    octaves = bands.pool()
    total = sum(octaves.target[1:])
    moved = [
        index
        for index in range(1, len(octaves.target))
        if total
        and octaves.target[index] >= least_share * total
        and (ratio := octaves.spectrum_ratio[index]) is not None
        and near <= ratio <= 1 / near
        and (found := octaves.band_coherence[index]) is not None
        and found <= coherence
    ]
    share = sum(octaves.target[index] for index in moved) / total if total else 0.0
    if share < 0.5:
        return None
    ratio = sum(octaves.output[index] for index in moved) / sum(octaves.target[index] for index in moved)
    return share, ratio, min(octaves.band_coherence[index] or 0.0 for index in moved)
