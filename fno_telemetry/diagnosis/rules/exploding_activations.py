"""Finds values that grow out of proportion."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_block, change_module, healthy_record
from fno_telemetry.diagnosis.growth import GrowthLimits, find_growth
from fno_telemetry.records import CaptureRecord


@rule(
    about="values",
    fires_on=lambda: change_module(change_block(healthy_record(), 1, gain=12.0), "blocks.1", rms=12.0),
    silent_on=lambda: change_block(healthy_record(), 1, gain=12.0),
)
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
    """A block amplifies its input, the blocks together do, or a layer is far larger than the rest.

    Formula: without a baseline, for layers whose rms is ordinary or more: a block's gain, rms(y) / rms(x), >=
    least_gain and >= of_siblings times the median of the other blocks; a layer's rms >= of_network times the
    median of the layers before it; the product of all gains >= over_depth. With a baseline: a layer's rms >=
    of_baseline times its own there, a block's gain >= gain_of_baseline times.
    Default: of_siblings 5, least_gain 10, of_network 300, over_depth 1000: healthy blocks had gains of 0.5
    to 3 and at most 3.6 times the median, healthy layers at most 27 times the median of their network.
    of_baseline 10 and gain_of_baseline 4: during healthy training no layer grew by more than 5.3 (by 26 from
    an untrained network on) and no block's gain by more than 1.9. ordinary 10: after a norm values are near
    1, however large or small its input was.
    Wrong when: the inputs have a very different size from those of the training.
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
    for growth in find_growth(record, baseline, limits):
        yield Symptom(
            severity="warning",
            place=growth.place,
            message=growth.message,
            evidence=growth.evidence,
            advice="The learning rate is probably too high, or a norm is missing: lower the rate, clip "
            "gradients, or add a norm before this layer.",
            explains=Consequences(about=("values", "gradients"), but_not=("dead_layer", "dead_channels")),
        )
