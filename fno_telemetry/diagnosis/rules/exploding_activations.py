"""Where values grow out of proportion."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import OF_GRADIENTS, OF_VALUES, Symptom
from fno_telemetry.diagnosis.growth import GrowthLimits, growths
from fno_telemetry.diagnosis.wording import digits
from fno_telemetry.records import CaptureRecord


def exploding_activations(
    record: CaptureRecord,
    *,
    baseline: CaptureRecord | None = None,
    of_siblings: float = 5,
    least_gain: float = 10,
    of_network: float = 300,
    over_depth: float = 1000,
    of_baseline: float = 10,
    gain_of_baseline: float = 4,
    ordinary: float = 10,
) -> Iterator[Symptom]:
    """A block multiplies the size of its input, the blocks together do, or a layer towers above the rest.

    Formula: without a baseline, for layers whose rms is ordinary or more: a block's gain, rms(y) / rms(x), >=
    least_gain and >= of_siblings times the median of the other blocks; a layer's rms >= of_network times the
    median of the layers before it. The product of all gains >= over_depth. With a baseline: a layer's rms >=
    of_baseline times its own there, a block's gain >= gain_of_baseline times.
    Default: healthy blocks had gains of 0.5 to 3 and at most 3.6 times the median; healthy layers at most
    27 times the median of their network. In the course of a healthy training no layer grew by more than
    5.3, from an untrained network on by 26, and no block's gain by more than 1.9. ordinary 10: behind a
    norm values are near 1, however large or small what went in was.
    Wrong when: inputs of quite another size than the network was trained on come in.
    """
    limits = GrowthLimits(
        of_siblings=of_siblings,
        gain=least_gain,
        of_network=of_network,
        over_depth=over_depth,
        of_baseline=of_baseline,
        gain_of_baseline=gain_of_baseline,
        ordinary=ordinary,
    )
    for growth in growths(record, baseline, limits):
        yield Symptom(
            severity="warning",
            place=growth.place,
            message=f"{growth.what} grow by a factor of {digits(growth.factor)}",
            evidence=growth.evidence,
            advice="Lower the rate, clip gradients, or put a norm before this place.",
            explains=(OF_VALUES | OF_GRADIENTS) - {"dead_layer", "dead_channels"},
        )
