"""Finds values that grow too much."""

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
    """The rms of the values grows too much: in one block, over all blocks together, or in one layer.

    Formula: the gain of a block is rms(y) / rms(x), where x is its input and y its output. If the baseline
        contains the block or layer, one of
        (1) the gain of the block >= `gain_of_baseline` (4) times its value in the baseline;
        (2) the rms of the layer >= `of_baseline` (10) times its value in the baseline.
        Otherwise, if the rms of the output (in (4): of the last block) is >= `ordinary` (10), one of
        (3) the gain of the block >= `least_gain` (10), and >= `of_siblings` (5) times the median of the other
            blocks;
        (4) there is no baseline, (3) holds for no block, and the product of the gains of all blocks >=
            `over_depth` (1000);
        (5) the rms of the layer >= `of_network` (300) times the median rms of the layers before it.
    Default: `of_siblings` is 5, `least_gain` is 10, `of_network` is 300 and `over_depth` is 1000: in healthy
        networks, gains were 0.5 to 3 and at most 3.6 times the median gain, and the rms of a layer was at
        most 27 times the median rms of its network. `of_baseline` is 10 and `gain_of_baseline` is 4: during
        healthy training, no rms of a layer grew by more than a factor of 5.3 (26 when the baseline is the
        untrained network), and no gain by more than a factor of 1.9. `ordinary` is 10: after a normalisation
        layer, values are near 1, whatever the scale of its input.
    False alarm when: the scale of the input is very different from that of the training data.
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
            advice="The learning rate is probably too high, or a normalisation layer is missing: lower the "
            "learning rate, clip gradients, or add a normalisation layer before this one.",
            explains=Consequences(about=("values", "gradients"), but_not=("dead_layer", "dead_channels")),
        )
