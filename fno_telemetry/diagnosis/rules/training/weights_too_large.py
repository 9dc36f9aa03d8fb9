"""Finds networks whose weights are far larger than layers start with, from one report."""

from collections.abc import Iterator

from fno_telemetry.comparison.learning import is_untrained
from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import make_linear
from fno_telemetry.diagnosis.initial_values import compare_with_start
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord


@rule(
    about="training",
    fires_on=lambda: make_linear(1.0),
    silent_on=lambda: make_linear(0.25),
)
def weights_too_large(record: CaptureRecord, *, times: float = 4) -> Iterator[Symptom]:
    """The weights are far larger than any that layers start with, as after steps that were too large.

    A step of Adam changes every weight by about the learning rate, so that a rate of 1 leaves weights of
    about 1, where layers of 64 inputs start at 0.07.

    Formula: of the weights of linear and convolution layers, three or more, let q be the rms over that of the
        largest usual start, which is Kaiming's, uniform up to sqrt(6 / inputs). The median of q is >= `times`
        (4), and the record is not of an untrained network.
    Default: in healthy trainings of some hundred steps the median was 0.4 to 0.8. After a rate that was far
        too high it was 4 to 30.
    False alarm when: layers start with weights of another scale, which their outputs are divided by.
    """
    found = compare_with_start(record)
    if found is None or found[1] < times or is_untrained(record):
        return
    yield Symptom(
        severity="warning",
        message=f"has weights that are far too large: {format_number(found[1])} times as large as any that "
        f"layers start with (median of {found[2]} layers), as after optimizer steps that were too large",
        evidence={"over_largest_start": found[1], "layers": found[2]},
        advice="The learning rate is or was probably too high: lower it ten times, warm it up over the first "
        "steps, clip the gradients, and go back to a checkpoint from before.",
        confirm="`update_to_weight` of a watched training should be 1e-4 to 1e-2 in every layer.",
        explains=Consequences(about=("accuracy", "values", "gradients")),
    )
