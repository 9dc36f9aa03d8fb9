"""Finds outputs that have the structures of the target at the wrong size."""

import math
from collections.abc import Iterator

from fno_telemetry.comparison.learning import is_untrained
from fno_telemetry.diagnosis.contract import Symptom, rule
from fno_telemetry.diagnosis.example_records import add_target, healthy_record
from fno_telemetry.diagnosis.places import output_place
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord


@rule(
    about="accuracy",
    yields=1,
    needs=("target",),
    fires_on=lambda: add_target(healthy_record(), (0.2, 0.2, 0.2, 0.2), error_to_mean_predictor=0.55),
    silent_on=lambda: add_target(healthy_record(), (0.8, 0.8, 0.8, 0.8), error_to_mean_predictor=0.11),
)
def output_size(
    record: CaptureRecord, *, times: float = 1.5, coherence: float = 0.6, missed: float = 0.3
) -> Iterator[Symptom]:
    """The output has the structures of the target, but all of them are too small, or too large.

    What minimises a squared error cannot be made better by a factor. Where a factor would make an output
    better, the network is not used as it was trained.

    Formula: the record is not of an untrained network, and its error is >= `missed` (0.3) times that of
        predicting the mean. Of all frequencies but the means, let c be the coherence of output and target,
        and s the factor with which the output would have the smallest error, c · ‖target‖ / ‖output‖. Both
        (1) c >= `coherence` (0.6);
        (2) s >= `times` (1.5), or s <= 1 / `times`.
    Default: healthy trained networks had s from 0.87 to 1.08, and half-trained ones from 0.69 to 1.33. With a
        strong dropout, batch norms with wrong statistics and weights that were loaded in part it was 1.7 to
        3.
    False alarm when: the network has just begun to learn; or its loss does not look at the size.
    """
    end = output_place(record)
    accuracy = record.accuracy
    error = accuracy.stats.get("error_to_mean_predictor") if accuracy is not None else None
    if end is None or accuracy is None or accuracy.bands is None or error is None or is_untrained(record):
        return
    bands = accuracy.bands
    target, output, rest = (math.fsum(row[1:]) for row in (bands.target, bands.output, bands.error))
    if error < missed or not target or not output:
        return
    common = (target + output - rest) / 2
    alike, factor = common / math.sqrt(target * output), common / output
    if alike < coherence or 1 / times < factor < times:
        return
    size = "small" if factor > 1 else "large"
    yield Symptom(
        severity="warning",
        place=end,
        message=f"has the structures of the target, but they are too {size}: the coherence is "
        f"{format_number(alike)}, and multiplied by {format_number(factor)} the output would be best, as if "
        "the network were not used as it was trained",
        evidence={"best_factor": factor, "coherence": alike, "error_to_mean_predictor": error},
        advice="Training and use probably differ: look for a strong dropout, for batch "
        "norms whose running statistics are wrong, for weights that were not all loaded, for an output or "
        "target that is scaled otherwise than in training, and for a loss that compares each output with the "
        "targets of other samples (a missing channel axis broadcasts).",
        confirm="with `model.train()` the error of the same samples should be smaller.",
    )
