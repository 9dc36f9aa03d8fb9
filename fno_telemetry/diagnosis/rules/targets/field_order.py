"""Finds inputs, or outputs, whose axes are flipped or swapped against those of the target."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from fno_telemetry.comparison.learning import is_untrained
from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import add_target, healthy_record
from fno_telemetry.diagnosis.places import Place, input_place, output_place
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord, OrderCoherence


def _swapped(coherence: float, as_given: float) -> CaptureRecord:
    record = add_target(
        healthy_record(), error_to_mean_predictor=0.9, input_coherence=as_given, input_noise=0.005
    )
    if record.accuracy is None:
        raise ValueError("the record has no accuracy")
    orders = (OrderCoherence((1, 0), (False, False), coherence, None),)
    return replace(record, accuracy=replace(record.accuracy, orders=orders))


@rule(
    about="target",
    needs=("target",),
    fires_on=lambda: _swapped(0.3, 0.03),
    silent_on=lambda: _swapped(0.05, 0.3),
)
def field_order(
    record: CaptureRecord,
    *,
    least: float = 0.08,
    times: float = 2,
    noises: float = 6,
    missed: float = 0.3,
) -> Iterator[Symptom]:
    """The input, or the output, is flipped or has its axes swapped against the target.

    Layers that treat every position alike, as spectral layers and convolutions do, cannot undo either.

    Formula: error_to_mean_predictor is >= `missed` (0.3), and of the input or, in a trained network, of the
        output, with c its coherence with the target as they are and c' the largest one in another order of
        the axes, in accuracy.orders, all of
        (1) c' >= `least` (0.08);
        (2) c' >= `times` (2) times c;
        (3) c' - c >= `noises` (6) times its noise, input_noise or output_noise.
    Default: in five tasks, of which one is not linear at all, c' was 0.1 to 1 and at least 2.6 times c where
        rows and columns were swapped or an axis was flipped. In pairs as they should be c was at least twice
        c', and where input and target had nothing to do with each other both were below 0.05, or closer than
        6 times the noise.
    False alarm when: flipping or swapping the axes is what the network is to learn.
    """
    accuracy = record.accuracy
    if accuracy is None or not accuracy.orders:
        return
    error = accuracy.stats.get("error_to_mean_predictor")
    if error is None or error < missed:
        return
    for what, place in (("input", input_place(record)), ("output", output_place(record))):
        if what == "output" and is_untrained(record):
            return
        as_given, noise = (accuracy.stats.get(f"{what}_{name}") for name in ("coherence", "noise"))
        known = [(value, order) for order in accuracy.orders if (value := getattr(order, what)) is not None]
        if place is None or as_given is None or noise is None or not known:
            continue
        best, order = max(known, key=lambda pair: pair[0])
        if best >= max(least, times * as_given) and best - as_given >= noises * noise:
            yield _describe(place, order, best, as_given, error)
            return


def _describe(
    place: Place[Any], order: OrderCoherence, best: float, as_given: float, error: float
) -> Symptom:
    return Symptom(
        severity="warning",
        place=place,
        message="has its spatial axes in another order than the target: their coherence is "
        f"{format_number(as_given)} as given, and {format_number(best)} with {order}",
        evidence={
            "coherence_in_the_other_order": best,
            "coherence": as_given,
            "error_to_mean_predictor": error,
        },
        advice="One of the two was probably stored with rows and columns swapped, or from the last row to "
        f"the first: bring the {place.name} into the order of the target (`transpose(-1, -2)`, `flip`), in "
        "training and test alike, and plot one pair.",
        confirm=f"after that, {place.name}_coherence should be as high as it is in the other order now.",
        explains=Consequences(about=("accuracy",)),
    )
