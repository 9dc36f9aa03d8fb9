"""Finds networks that are no better than predicting the mean of the target."""

from collections.abc import Iterator

from fno_telemetry.comparison.learning import is_untrained
from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import add_target, healthy_record
from fno_telemetry.diagnosis.places import output_place, target_place
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord


@rule(
    about="accuracy",
    yields=1,
    needs=("target",),
    fires_on=lambda: add_target(healthy_record(), error_to_mean_predictor=0.99, output_to_target_rms=0.05),
    silent_on=lambda: add_target(healthy_record(), error_to_mean_predictor=0.7, output_to_target_rms=0.7),
)
def mean_predictor(
    record: CaptureRecord,
    *,
    no_better: float = 0.85,
    flat: float = 0.5,
    alike: float = 0.3,
    missed: float = 0.3,
) -> Iterator[Symptom]:
    """A trained network is no better than predicting the mean of the target.

    Formula: the record is not of an untrained network. Let e be the error over that of predicting the mean of
        each channel of the target. One of
        (1) e >= `no_better` (0.85). If the output has at most `flat` (0.5) times the rms of the target,
            nothing of the target could be learned from the input; if it is larger, the output has structure,
            but not that of the target;
        (2) e >= `missed` (0.3), and the sample_variation of the output is <= `alike` (0.3) times that of the
            target: the output is the mean of the samples, field by field.
    Default: healthy networks had an e of at most 0.6 when they were trained, and of 0.75 after half of that;
        their sample_variation was 0.65 times that of the target and more, and 0.42 times.
    False alarm when: the report is of the first steps of a training.
    """
    end, target = output_place(record), target_place(record)
    stats = record.accuracy.stats if record.accuracy is not None else {}
    error, size = stats.get("error_to_mean_predictor"), stats.get("output_to_target_rms")
    if end is None or error is None or size is None or is_untrained(record):
        return
    varies, differs = (None if one is None else one.value("sample_variation") for one in (end, target))
    is_same = varies is not None and bool(differs) and varies <= alike * float(differs or 0)
    evidence = {"error_to_mean_predictor": error, "output_to_target_rms": size}
    if error < no_better and not (is_same and error >= missed):
        return
    if error < no_better and varies is not None and differs is not None:
        message = "hardly differs between samples: its sample_variation is "
        message += f"{format_number(varies)}, that of the target {format_number(differs)}"
        evidence |= {"sample_variation": varies, "of_the_target": differs}
        advice = (
            "The network predicts the mean of the samples: check that each output is compared with its own "
            "target, in the same order and shape (a missing channel axis broadcasts in the loss)."
        )
    elif size <= flat:
        message = f"has learned nothing of the target: its error is {format_number(error)} times that of "
        message += f"predicting the mean, and its rms {format_number(size)} times that of the target"
        advice = (
            "Inputs and targets probably do not belong together: check that both are read in the same "
            "order and shuffled together, that neither is transposed, flipped or reshaped (order of the "
            "axes), and that prediction and target have the same shape in the loss (a missing channel axis "
            "broadcasts). If nothing was learned at all, watch the training: do the parameters move?"
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
        evidence=evidence,
        advice=advice,
        confirm="train on four samples alone: a network whose pairs match reaches an error near zero.",
        explains=Consequences(about=("accuracy",)),
    )
