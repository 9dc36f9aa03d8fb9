"""Finds targets that are a part of the input in training only."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import add_target, change_input, healthy_record
from fno_telemetry.diagnosis.places import input_place
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord


def _leaking(*rms: float, error: float) -> CaptureRecord:
    record = change_input(healthy_record(), channel_rms=rms)
    return add_target(record, error_to_mean_predictor=error)


@rule(
    about="input",
    needs=("target", "test"),
    fires_on=lambda: _leaking(1.0, 1.0, error=0.01),
    silent_on=lambda: _leaking(1.0, 0.0, error=0.6),
    against=lambda: _leaking(1.0, 0.0, error=0.7),
)
def target_leak(
    record: CaptureRecord,
    *,
    test: CaptureRecord | None = None,
    empty: float = 1e-3,
    times: float = 3,
) -> Iterator[Symptom]:
    """A channel of the input is there in training, but not in the test, and the error of the test is larger.

    Formula: the rms of an input channel in the test is at most `empty` (1e-3) times that in training, and
        error_to_mean_predictor of the test is >= `times` (3) times that of the training samples.
    Default: `empty` is 1e-3: a channel that is zero, or a constant of almost zero, where it is not known.
    False alarm when: a channel is zero in some cases on purpose, such as a forcing.
    """
    place, other = input_place(record), input_place(test) if test is not None else None
    learned, tested = (
        one.accuracy.stats.get("error_to_mean_predictor") if one and one.accuracy else None
        for one in (record, test)
    )
    if place is None or other is None or learned is None or tested is None or tested < times * learned:
        return
    pairs = zip(place.entry.channel_rms or (), other.entry.channel_rms or (), strict=False)
    for channel, (there, absent) in enumerate(pairs):
        if there and absent is not None and absent <= empty * there:
            yield Symptom(
                severity="warning",
                place=place,
                message=f"probably contains the target: channel {channel} has rms {format_number(there)} in "
                f"training and {format_number(absent)} in the test, where the error is "
                f"{format_number(tested / learned if learned else float(tested))} times as large",
                evidence={
                    "channel": channel,
                    "rms_of_channel": there,
                    "rms_of_channel_in_the_test": absent,
                    "error_to_mean_predictor": learned,
                    "of_the_test": tested,
                },
                advice="The network reads its answer off a channel that is not known when it predicts, which "
                "is a leak of the target: leave this channel out of the input, and train again.",
                confirm="the correlation of this channel with the target in the training samples is near 1.",
                explains=Consequences(about=("accuracy", "input")),
            )
