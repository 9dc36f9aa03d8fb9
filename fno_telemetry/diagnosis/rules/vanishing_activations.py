"""Where values shrink out of proportion."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import OF_GRADIENTS, OF_VALUES, Symptom
from fno_telemetry.diagnosis.growth import GrowthLimits, growths
from fno_telemetry.diagnosis.places import input_place, module_places
from fno_telemetry.diagnosis.wording import digits
from fno_telemetry.records import CaptureRecord


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
    median of the layers before it; the lifting's rms <= of_input times the model's input's. The product of
    all gains <= over_depth. With a baseline: a layer's rms <= of_baseline times its own there, a block's gain
    <= gain_of_baseline times.
    Default: healthy blocks had gains of 0.5 to 3, at least 0.47 of the median; healthy layers at least 0.03
    of the median of their network, liftings at least 0.02 of the input. In the course of a healthy training
    no layer fell below 0.62 of before, no block's gain below 0.57. ordinary 0.03: behind a norm values are
    near 1, however large or small what went in was.
    Wrong when: inputs of quite another size than the network was trained on come in.
    """
    explained = OF_VALUES | OF_GRADIENTS
    advice = "Look at its weights and at what scales it; a decay that is too strong shrinks layers."
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
    for growth in growths(record, baseline, limits):
        yield Symptom(
            severity="warning",
            place=growth.place,
            message=f"{growth.what} shrink by a factor of {digits(1 / growth.factor)}",
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
                message=f"lifts to {digits(rms / size)} of the input's size",
                evidence={"rms": rms, "of_the_input": size},
                advice=advice,
                explains=explained,
            )
