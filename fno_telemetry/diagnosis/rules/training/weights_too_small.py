"""Finds networks whose weights are far smaller than layers start with, from one report."""

from collections.abc import Iterator

from fno_telemetry.comparison.learning import is_untrained
from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import make_linear
from fno_telemetry.diagnosis.initial_values import compare_with_start
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord


@rule(
    about="training",
    fires_on=lambda: make_linear(0.008),
    silent_on=lambda: make_linear(0.04),
)
def weights_too_small(record: CaptureRecord, *, times: float = 0.15) -> Iterator[Symptom]:
    """The weights are far smaller than any that layers start with, as weight decay makes them.

    Formula: as `weights_too_large`, but q is over the smallest usual start, uniform up to 1 / sqrt(inputs),
        and its median is <= `times` (0.15).
    Default: in healthy trainings of some hundred steps the median was 1.0 to 1.3. Transformers that start
        with a standard deviation of 0.02 have 0.3 at a width of 64, and more at larger ones.
    False alarm when: layers start with small weights on purpose.
    """
    found = compare_with_start(record)
    if found is None or found[0] > times or is_untrained(record):
        return
    yield Symptom(
        severity="warning",
        message=f"has lost its weights: they are {format_number(found[0])} times as large as the smallest "
        f"that layers start with (median of {found[2]} layers), as weight decay leaves them",
        evidence={"over_smallest_start": found[0], "layers": found[2]},
        advice="Weight decay, or an L2 penalty in the loss, is probably too strong: lower it, or use AdamW, "
        "in which it does not depend on the gradients; common values are 1e-5 to 1e-2.",
        confirm="without weight decay the norms should stay, and the loss fall further.",
        explains=Consequences(about=("accuracy", "values", "weights", "gradients")),
    )
