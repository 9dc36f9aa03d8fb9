"""Finds networks that are no better than predicting the mean of the target."""

from collections.abc import Iterator

from fno_telemetry.comparison.learning import is_untrained
from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import add_target, healthy_record
from fno_telemetry.diagnosis.places import output_place
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord


@rule(
    about="accuracy",
    needs=("target",),
    fires_on=lambda: add_target(healthy_record(), error_to_mean_predictor=0.99, output_to_target_rms=0.05),
    silent_on=lambda: add_target(healthy_record(), error_to_mean_predictor=0.7, output_to_target_rms=0.7),
)
def mean_predictor(
    record: CaptureRecord,
    *,
    no_better: float = 0.9,
    flat: float = 0.5,
) -> Iterator[Symptom]:
    """A trained network is no better than predicting the mean of the target.

    Formula: the record is not of an untrained network, and the error is >= `no_better` (0.9) times that of
        predicting the mean of each channel of the target. If the output has at most `flat` (0.5) times the
        rms of the target, nothing of the target could be learned from the input; if it is larger, the output
        has structure, but not that of the target.
    Default: `no_better` is 0.9; trained healthy networks were below 0.7.
    False alarm when: the report is of the first steps of a training.
    """
    end = output_place(record)
    stats = record.accuracy.stats if record.accuracy is not None else {}
    error, size = stats.get("error_to_mean_predictor"), stats.get("output_to_target_rms")
    if end is None or error is None or size is None or error < no_better or is_untrained(record):
        return
    if size <= flat:
        message = f"has learned nothing of the target: its error is {format_number(error)} times that of "
        message += f"predicting the mean, and its rms {format_number(size)} times that of the target"
        advice = (
            "Inputs and targets probably do not belong together: check that both are read in the same "
            "order and shuffled together, and that prediction and target have the same shape in the "
            "loss (a missing channel axis broadcasts)."
        )
    else:
        message = f"is no better than predicting the mean of the target: its error is {format_number(error)} "
        message += "times that"
        advice = (
            "The output has structure, but not that of the target: check the order of the axes of input and "
            "target, that the pairs match, and that the output is scaled as the target is."
        )
    yield Symptom(
        severity="warning",
        place=end,
        message=message,
        evidence={"error_to_mean_predictor": error, "output_to_target_rms": size},
        advice=advice,
        confirm="train on four samples alone: a network whose pairs match reaches an error near zero.",
        explains=Consequences(about=("accuracy",)),
    )
