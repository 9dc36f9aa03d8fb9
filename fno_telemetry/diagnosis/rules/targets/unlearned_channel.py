"""Finds channels of the output that are not learned while others are."""

from collections.abc import Iterator
from dataclasses import replace

from fno_telemetry.comparison.learning import is_untrained
from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import add_target, healthy_record
from fno_telemetry.diagnosis.places import output_place
from fno_telemetry.diagnosis.wording import format_number, join_names
from fno_telemetry.records import CaptureRecord


def _with_channels(*ratios: float) -> CaptureRecord:
    record = add_target(healthy_record(), error_to_mean_predictor=0.7)
    if record.accuracy is None:
        raise ValueError("the record has no accuracy")
    return replace(record, accuracy=replace(record.accuracy, channels=ratios))


@rule(
    about="accuracy",
    needs=("target",),
    fires_on=lambda: _with_channels(0.95, 0.2),
    silent_on=lambda: _with_channels(0.95, 0.6),
)
def unlearned_channel(
    record: CaptureRecord, *, away: float = 2.5, learned: float = 0.65, missed: float = 0.3
) -> Iterator[Symptom]:
    """Some channels of the output have the size of the target, and others are far from it.

    Formula: the record is not of an untrained network, its output has space, and its error is >= `missed`
        (0.3) times that of predicting the mean. Let r be output_to_target_rms of a channel. r of one channel
        is <= 1 / `away` (2.5) or >= `away`, and r of another is from `learned` (0.65) to 1 / `learned`.
    Default: in healthy networks r of every channel was 0.79 to 1.1, and all channels of a network were alike.
        Where a loss left a channel out, that was 0.2.
    False alarm when: a channel is noise, or constant, which is best predicted by its mean.
    """
    end = output_place(record)
    accuracy = record.accuracy
    error = accuracy.stats.get("error_to_mean_predictor") if accuracy is not None else None
    if end is None or accuracy is None or error is None or error < missed or is_untrained(record):
        return
    if not end.entry.spatial_axes:
        return  # what is taken for channels may be points
    known = [(index, ratio) for index, ratio in enumerate(accuracy.channels or ()) if ratio is not None]
    far = [(index, ratio) for index, ratio in known if not 1 / away < ratio < away]
    right = [(index, ratio) for index, ratio in known if learned <= ratio <= 1 / learned]
    if not far or not right:
        return
    names = join_names([str(index) for index, _ in far])
    yield Symptom(
        severity="warning",
        place=end,
        message=f"does not learn channel{'' if len(far) == 1 else 's'} {names}, as if the loss did not see "
        f"{'it' if len(far) == 1 else 'them'}: the rms is {format_number(far[0][1])} times that of the "
        f"target, in channel {right[0][0]} {format_number(right[0][1])} times",
        evidence={
            "channels": names,
            "output_to_target_rms": far[0][1],
            "of_a_learned_channel": right[0][1],
            "error_to_mean_predictor": error,
        },
        advice="The loss probably compares the other channels only, such as the amplitude without the phase, "
        "or the real part alone; or these channels have another scale: normalise the target by channel.",
        confirm="the loss should change when this channel of the output is set to zero.",
        explains=Consequences(about=("accuracy",)),
    )
