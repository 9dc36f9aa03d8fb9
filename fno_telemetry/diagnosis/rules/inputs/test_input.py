"""Finds test samples that were prepared in another way than the training samples."""

from collections.abc import Iterator
from typing import Any

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_input, healthy_record
from fno_telemetry.diagnosis.places import Place, input_place
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord


@rule(
    about="input",
    needs=("test",),
    fires_on=lambda: change_input(healthy_record(), mean=0.0, std=1.0, rms=1.0),
    silent_on=lambda: change_input(healthy_record(), mean=10.0, std=3.0, rms=10.4),
    against=lambda: change_input(healthy_record(), mean=12.0, std=2.5, rms=12.3),
)
def test_input(
    record: CaptureRecord,
    *,
    test: CaptureRecord | None = None,
    scale: float = 2,
    shift: float = 1,
    of_channel: float = 4,
) -> Iterator[Symptom]:
    """The test samples have another scale or mean than the training samples.

    Formula: let m, s be mean and standard deviation of the model's input in the training samples, and m', s'
        in the test samples. One of
        (1) s' >= `scale` (2) · s, or s' <= s / `scale`;
        (2) |m' - m| >= `shift` (1) · s;
        (3) the rms of a channel is `of_channel` (4) times that in the training samples or more, or
            1 / `of_channel` or less.
    Default: means and deviations of test samples of the same kind differed by less than 30 %.
    False alarm when: the test is of other data on purpose, such as another Reynolds number.
    """
    place, other = input_place(record), input_place(test) if test is not None else None
    if place is None or other is None:
        return
    mean, std, mean_of_test, std_of_test = (
        each.value(name) for each in (place, other) for name in ("mean", "std")
    )
    if mean is None or mean_of_test is None or not std or std_of_test is None:
        return
    evidence: dict[str, Any] = {
        "mean": mean,
        "std": std,
        "mean_of_the_test": mean_of_test,
        "std_of_the_test": std_of_test,
    }
    channel = _find_channel(place, other, of_channel)
    if not 1 / scale < std_of_test / std < scale or abs(mean_of_test - mean) >= shift * std:
        message = f"has mean {format_number(mean)} and standard deviation {format_number(std)} in training, "
        message += f"but {format_number(mean_of_test)} and {format_number(std_of_test)} in the test"
    elif channel is not None:
        index, before, after = channel
        message = f"differs between training and test: channel {index} has rms {format_number(before)} in "
        message += f"training and {format_number(after)} in the test"
        evidence |= {"channel": index, "rms_of_channel": before, "rms_of_channel_in_the_test": after}
    else:
        return
    yield Symptom(
        severity="warning",
        place=place,
        message=message,
        evidence=evidence,
        advice="The test samples were probably normalised otherwise: use the mean and standard deviation of "
        "the training samples for both, as in training, and keep the order of the channels.",
        confirm="run the test on a few training samples: its error should be that of the training.",
        explains=Consequences(about=("accuracy",)),
    )


def _find_channel(place: Place[Any], other: Place[Any], times: float) -> tuple[int, float, float] | None:
    """Return the channel whose rms differs most, with both values; None if all are alike."""
    pairs = zip(place.entry.channel_rms or (), other.entry.channel_rms or (), strict=False)
    known = [(index, one, two) for index, (one, two) in enumerate(pairs) if one and two is not None]
    far = [(max(two / one, one / two if two else times), index, one, two) for index, one, two in known]
    worst = max(far, default=None)
    return None if worst is None or worst[0] < times else worst[1:]
