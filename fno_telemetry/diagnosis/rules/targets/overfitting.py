"""Finds networks that are far worse on test samples than on training samples."""

from collections.abc import Iterator

from fno_telemetry.comparison.learning import is_untrained
from fno_telemetry.diagnosis.contract import Symptom, rule
from fno_telemetry.diagnosis.example_records import add_target, healthy_record
from fno_telemetry.diagnosis.places import output_place
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord


@rule(
    about="accuracy",
    needs=("target", "test"),
    fires_on=lambda: add_target(healthy_record(), error_to_mean_predictor=0.01),
    silent_on=lambda: add_target(healthy_record(), error_to_mean_predictor=0.4),
    against=lambda: add_target(healthy_record(), error_to_mean_predictor=0.5),
)
def overfitting(
    record: CaptureRecord, *, test: CaptureRecord | None = None, times: float = 3, bad: float = 0.3
) -> Iterator[Symptom]:
    """The error on test samples is far larger than that on the training samples.

    Formula: let e be error_to_mean_predictor. Both
        (1) e of the test is >= `times` (3) times e of the training samples;
        (2) e of the test is >= `bad` (0.3), since a small error may well be three times an even smaller one.
    Default: healthy networks were at most 2 times worse on the test; those that had learned their samples by
        heart, 5 times and more.
    False alarm when: the test samples are of another kind on purpose.
    """
    end = output_place(record)
    learned, tested = (
        one.accuracy.stats.get("error_to_mean_predictor") if one and one.accuracy else None
        for one in (record, test)
    )
    if end is None or learned is None or tested is None or is_untrained(record):
        return
    if tested < max(times * learned, bad):
        return
    yield Symptom(
        severity="warning",
        place=end,
        message=f"is overfitted: the error on the test samples is {format_number(tested)} times that of "
        f"predicting the mean, on the training samples {format_number(learned)}",
        evidence={"error_to_mean_predictor": learned, "of_the_test": tested},
        advice="The network has learned its training samples by heart: use more samples or augmentation, "
        "weight decay or a smaller network, and stop earlier.",
        confirm="the error on the test falls with twice the samples, while that on the training rises.",
    )
