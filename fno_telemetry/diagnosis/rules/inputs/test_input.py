"""Finds test samples that were prepared in another way than the training samples."""

from collections.abc import Iterator
from typing import Any

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_input, healthy_record
from fno_telemetry.diagnosis.places import Place, input_place
from fno_telemetry.diagnosis.wording import format_number, format_percent
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
    rougher: float = 0.1,
    failed: float = 1.2,
    times: float = 3,
) -> Iterator[Symptom]:
    """The test samples have another scale or mean than the training samples.

    Formula: let m, s be mean and standard deviation of the model's input in the training samples, and m', s'
        in the test samples. One of
        (1) s' >= `scale` (2) · s, or s' <= s / `scale`;
        (2) |m' - m| >= `shift` (1) · s;
        (3) the rms of a channel is `of_channel` (4) times that in the training samples or more, or
            1 / `of_channel` or less;
        (4) the share of energy above 1/4 cycle per grid point differs by `rougher` (0.1) or more, on the same
            grid;
        (5) the test is worse than predicting the mean of its target: error_to_mean_predictor is >= `failed`
            (1.2), and >= `times` (3) times that of the training samples.
    Default: means and deviations of test samples of the same kind differed by less than 30 %, the share of
        their energy at high frequencies by at most 0.03. Networks that had learned their samples by heart
        were not worse than the mean on the test, those that were given channels in another order were.
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
    elif (rough := _find_roughness(place, other)) is not None and abs(rough[1] - rough[0]) >= rougher:
        message = f"is {'rougher' if rough[1] > rough[0] else 'smoother'} in the test: "
        message += f"{format_percent(rough[1])} of its energy is above 1/4 cycle per grid point, in training "
        message += format_percent(rough[0])
        evidence |= {"high_frequency_fraction": rough[0], "of_the_test": rough[1]}
    elif (errors := _find_errors(record, test)) is not None and errors[1] >= max(failed, times * errors[0]):
        message = (
            "is probably prepared in another way in the test, although its scale is the same: the error "
        )
        message += f"is {format_number(errors[1])} times that of predicting the mean, in training "
        message += format_number(errors[0])
        evidence |= {"error_to_mean_predictor": errors[0], "error_of_the_test": errors[1]}
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


def _find_roughness(place: Place[Any], other: Place[Any]) -> tuple[float, float] | None:
    if place.entry.shape[1:] != other.entry.shape[1:]:
        return None  # a finer grid has higher frequencies
    before, after = (one.value("high_frequency_fraction") for one in (place, other))
    return None if before is None or after is None else (before, after)


def _find_errors(record: CaptureRecord, test: CaptureRecord | None) -> tuple[float, float] | None:
    before, after = (
        one.accuracy.stats.get("error_to_mean_predictor") if one and one.accuracy else None
        for one in (record, test)
    )
    return None if before is None or after is None else (before, after)


def _find_channel(place: Place[Any], other: Place[Any], times: float) -> tuple[int, float, float] | None:
    """Return the channel whose rms differs most, with both values; None if all are alike."""
    pairs = zip(place.entry.channel_rms or (), other.entry.channel_rms or (), strict=False)
    known = [(index, one, two) for index, (one, two) in enumerate(pairs) if one and two is not None]
    far = [(max(two / one, one / two if two else times), index, one, two) for index, one, two in known]
    worst = max(far, default=None)
    return None if worst is None or worst[0] < times else worst[1:]
