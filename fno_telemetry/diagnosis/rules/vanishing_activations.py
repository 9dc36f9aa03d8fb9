"""Finds values that shrink out of proportion."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_module, healthy_record
from fno_telemetry.diagnosis.growth import GrowthLimits, find_growth
from fno_telemetry.diagnosis.places import input_place, module_places
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord


@rule(
    about="values",
    fires_on=lambda: change_module(healthy_record(), "blocks.1.local", rms=1e-4),
    silent_on=lambda: change_module(healthy_record(), "blocks.1.local", rms=2e-3),
)
def vanishing_activations(
    record: CaptureRecord,
    *,
    baseline: CaptureRecord | None = None,
    of_siblings: float = 0.1,
    most_gain: float = 0.1,
    of_network: float = 1e-3,
    over_depth: float = 1e-3,
    of_baseline: float = 0.2,
    gain_of_baseline: float = 0.25,
    ordinary: float = 0.03,
    of_input: float = 1e-3,
) -> Iterator[Symptom]:
    """A block shrinks its input, the blocks together do, or a layer is far smaller than the rest.

    Formula: without a baseline, for layers whose rms is ordinary or less: a block's gain, rms(y) / rms(x), <=
    most_gain and <= of_siblings times the median of the other blocks; a layer's rms <= of_network times the
    median of the layers before it; the lifting's rms <= of_input times that of the model's input; the product
    of all gains <= over_depth. With a baseline: a layer's rms <= of_baseline times its own there, a block's
    gain <= gain_of_baseline times.
    Default: of_siblings 0.1, most_gain 0.1, of_network 1e-3, over_depth 1e-3, of_input 1e-3: healthy blocks
    had gains of 0.5 to 3, at least 0.47 of the median; healthy layers at least 0.03 of the median of their
    network, liftings at least 0.02 of the input. of_baseline 0.2 and gain_of_baseline 0.25: during healthy
    training no layer fell below 0.62 of before, no block's gain below 0.57. ordinary 0.03: after a norm
    values are near 1, however large or small its input was.
    Wrong when: the inputs have a very different size from those of the training.
    """
    explained = Consequences(about=("values", "gradients"))
    advice = (
        "Its weights, or a scale before it, are probably too small, often after weight decay that is too "
        "strong: check them."
    )
    limits = GrowthLimits(
        of_siblings=of_siblings,
        gain=most_gain,
        of_network=of_network,
        over_depth=over_depth,
        of_baseline=of_baseline,
        gain_of_baseline=gain_of_baseline,
        ordinary=ordinary,
        shrinking=True,
    )
    for growth in find_growth(record, baseline, limits):
        yield Symptom(
            severity="warning",
            place=growth.place,
            message=growth.message,
            evidence=growth.evidence,
            advice=advice,
            explains=explained,
        )
    entered = input_place(record)
    size = entered.value("rms") if entered is not None else None
    for place in module_places(record):
        rms = place.value("rms")
        if place.role == "lifting" and size and rms and rms <= min(of_input * size, ordinary):
            yield Symptom(
                severity="warning",
                place=place,
                message=f"has rms {format_number(rms)}, {format_number(rms / size)} times that of the "
                "model's input",
                evidence={"rms": rms, "of_the_input": size},
                advice=advice,
                explains=explained,
            )
