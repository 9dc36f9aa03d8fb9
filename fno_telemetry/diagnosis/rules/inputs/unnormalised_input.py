"""Finds inputs that are not normalised in networks that miss their target."""

from collections.abc import Iterator
from dataclasses import replace

from fno_telemetry.comparison.learning import is_untrained
from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import add_target, change_input, healthy_record
from fno_telemetry.diagnosis.places import input_place
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord, freeze_mapping


def _with_error(error: float) -> CaptureRecord:
    record = change_input(healthy_record(), mean=300.0, std=1.0, rms=300.0)
    record = replace(record, summary=freeze_mapping({**record.summary, "weights": "given"}))
    return add_target(record, error_to_mean_predictor=error)


@rule(
    about="input",
    needs=("target",),
    fires_on=lambda: _with_error(0.95),
    silent_on=lambda: _with_error(0.4),
)
def unnormalised_input(
    record: CaptureRecord,
    *,
    missed: float = 0.7,
    large: float = 300,
    small: float = 0.003,
    offset: float = 30,
) -> Iterator[Symptom]:
    """The input of a trained network is not normalised, and the network misses its target.

    Formula: the record is not of an untrained network, its error is at least `missed` (0.7) times that of
        predicting the mean of the target, and of the model's input one of
        (1) the rms is >= `large` (300) or <= `small` (0.003);
        (2) |mean| is >= `offset` (30) times the standard deviation.
    Default: the error of trained healthy networks was at most 0.6. Inputs that were normalised had an rms of
        0.3 to 3 and a mean of at most 3 times the standard deviation; those in Kelvin, in pascal and in raw
        units had a mean of 300 times it, or an rms of 1,000 and more.
    False alarm when: the network normalises its input itself, and fails for another reason.
    """
    place = input_place(record)
    error = record.accuracy.stats.get("error_to_mean_predictor") if record.accuracy is not None else None
    if place is None or error is None or error < missed or is_untrained(record):
        return
    size, mean, std = (place.value(name) for name in ("rms", "mean", "std"))
    if mean is not None and std and abs(mean) >= offset * std:
        message = f"is not normalised: its mean is {format_number(mean)}, its standard deviation "
        message += format_number(std)
    elif size and (size >= large or size <= small):
        message = f"is not normalised: its rms is {format_number(size)}, networks are made for about 1"
    else:
        return
    yield Symptom(
        severity="warning",
        place=place,
        message=f"{message}; the error is {format_number(error)} times that of predicting the mean",
        evidence={"rms": size, "mean": mean, "std": std, "error_to_mean_predictor": error},
        advice="Normalise the input: subtract the mean and divide by the standard deviation of the training "
        "samples, by channel, and keep both numbers for the test.",
        confirm="with inputs of mean 0 and standard deviation 1 the loss should fall from the start.",
        explains=Consequences(about=("values", "gradients", "accuracy", "training")),
    )
