"""Finds outputs that cannot reach the values of the target."""

from collections.abc import Iterator

from fno_telemetry.comparison.learning import is_untrained
from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import add_target, change_output, healthy_record
from fno_telemetry.diagnosis.places import output_place, target_place
from fno_telemetry.diagnosis.wording import format_number, format_percent
from fno_telemetry.records import CaptureRecord


@rule(
    about="accuracy",
    needs=("target",),
    fires_on=lambda: add_target(
        change_output(healthy_record(), min=0.0, p05=0.0, zero_fraction=0.5),
        target={"negative_fraction": 0.5},
    ),
    silent_on=lambda: add_target(
        change_output(healthy_record(), min=0.0, p05=0.0, zero_fraction=0.5),
        target={"negative_fraction": 0.0},
    ),
)
def output_range(
    record: CaptureRecord,
    *,
    negative: float = 0.05,
    beyond: float = 0.05,
    ends: float = 0.02,
    pressed: float = 0.2,
) -> Iterator[Symptom]:
    """The output cannot take values that the target has, because an activation function ends the network.

    Formula: the record is not of an untrained network. Let a and b be the smallest and the largest value of
        the output. One of
        (1) a >= 0, the share of negative values of the target is >= `negative` (0.05), and the 5th percentile
            of the output is <= `pressed` (0.2) times its rms, so that its values crowd at zero;
        (2) -1 <= a and b <= 1, a or b is within `ends` (0.02) of such an end, and the 5th or the 95th
            percentile of the target is at least `beyond` (0.05) outside of -1 to 1.
    Default: `negative` is 0.05 and `beyond` is 0.05, so that a few values outside of the range do not count;
        `ends` is 0.02: what a tanh that is pressed against its end returns. `pressed` is 0.2: the output of a
        network that has learned nothing may be a positive constant with little around it, whose 5th
        percentile is near its rms; behind a sigmoid or a ReLU it was 0.
    False alarm when: the prediction is compared in another space than that of the output.
    """
    end, target = output_place(record), target_place(record)
    if end is None or target is None or is_untrained(record):
        return
    low, high, rms, fifth = (end.value(name) for name in ("min", "max", "rms", "p05"))
    share, below, above = (target.value(name) for name in ("negative_fraction", "p05", "p95"))
    if low is None or high is None or end.entry.values_of != target.entry.values_of:
        return
    crowds = rms is None or fifth is None or fifth <= pressed * rms
    if low >= 0 and crowds and share is not None and share >= negative:
        zeros = end.value("zero_fraction") or 0.0
        which = "a ReLU" if zeros >= negative else "a sigmoid, a softplus or a square"
        message = f"is never negative, but {format_percent(share)} of the target is"
        evidence = {"min": low, "max": high, "zero_fraction": zeros, "negative_fraction_of_target": share}
    elif (
        below is not None
        and above is not None
        and -1 <= low <= high <= 1
        and max(-low, high) >= 1 - ends
        and max(-below, above) >= 1 + beyond
    ):
        which = "a tanh"
        message = f"stays between -1 and 1, but the target goes from {format_number(below)} to "
        message += f"{format_number(above)} (5th to 95th percentile)"
        evidence = {"min": low, "max": high, "p05_of_target": below, "p95_of_target": above}
    else:
        return
    yield Symptom(
        severity="warning",
        place=end,
        message=message,
        evidence=evidence,
        advice=f"The network probably ends with {which}: remove this activation at the output, or bring the "
        "target into its range.",
        confirm="look at the last layer of the forward, and at the smallest and largest value of the target.",
        explains=Consequences(about=("accuracy",), rules=("saturated_activation", "dead_channels")),
    )
