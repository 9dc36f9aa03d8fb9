"""Finds targets whose scale or mean a network does not reach."""

from collections.abc import Iterator
from typing import Any

from fno_telemetry.comparison.learning import is_untrained
from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import add_target, healthy_record
from fno_telemetry.diagnosis.places import module_places, output_place, target_place
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord


@rule(
    about="target",
    needs=("target",),
    fires_on=lambda: add_target(
        healthy_record(), target={"rms": 1e4, "std": 9e3}, error_to_mean_predictor=0.97
    ),
    silent_on=lambda: add_target(
        healthy_record(), target={"rms": 1e4, "std": 9e3}, error_to_mean_predictor=0.02
    ),
)
def target_scale(
    record: CaptureRecord,
    *,
    large: float = 100,
    small: float = 0.01,
    offset: float = 20,
    missed: float = 0.5,
    missed_offset: float = 0.2,
) -> Iterator[Symptom]:
    """The target has a scale, or a mean, that the network does not reach.

    Weights start with outputs of about 1, and gradients of a squared error grow with the scale of the target.

    Formula: the record is not of an untrained network, and with e, the error over that of predicting the mean
        of the target, one of
        (1) the rms of the target is >= `large` (100) or <= `small` (0.01), and e >= `missed` (0.5);
        (2) its |mean| is >= `offset` (20) times its standard deviation, e is >= `missed_offset` (0.2), and
            some layer with weights has at least half the rms of the output: the network itself has to reach
            that mean, and does not add it at the end.
    Default: targets that were normalised had an rms of 0.3 to 3 and a mean below their deviation. With
        targets of 1e-6 and 1e4 the error was 0.5 times that of the mean and more; with a mean of 24
        deviations it was 0.3 times, and 0.01 to 0.1 times where the target was normalised.
    False alarm when: the network scales its output, and another fault keeps it from learning.
    """
    place = target_place(record)
    error = record.accuracy.stats.get("error_to_mean_predictor") if record.accuracy is not None else None
    if place is None or error is None or is_untrained(record):
        return
    size, mean, std = (place.value(name) for name in ("rms", "mean", "std"))
    evidence: dict[str, Any] = {"rms": size, "mean": mean, "std": std, "error_to_mean_predictor": error}
    is_shifted = mean is not None and bool(std) and abs(mean) >= offset * float(std or 0)
    if is_shifted and error >= missed_offset and _reaches_output_itself(record):
        message = f"is not normalised: its mean is {format_number(mean or 0)}, its standard deviation "
        message += format_number(std or 0)
    elif error >= missed and size and (size >= large or size <= small):
        message = f"is not normalised: its rms is {format_number(size)}, a network starts at about 1"
    else:
        return
    yield Symptom(
        severity="warning",
        place=place,
        message=message,
        evidence=evidence,
        advice="The network does not reach the scale of the target: normalise the target with the mean and "
        "standard deviation of the training targets, train on that, and scale the output back.",
        confirm="with a normalised target, the first value of a mean squared error is about 1.",
        explains=Consequences(about=("accuracy", "values", "gradients", "training", "steps")),
    )


def _reaches_output_itself(record: CaptureRecord) -> bool:
    """Return whether a layer with weights has the scale of the output: nothing scales it afterwards."""
    end = output_place(record)
    size = end.value("rms") if end is not None else None
    if not size:
        return True
    sizes = [place.value("rms") for place in module_places(record) if "weight_norm" in place.entry.stats]
    return any(one is not None and 2 * one >= size for one in sizes)
