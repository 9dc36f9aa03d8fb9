"""Finds values that grow too much."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_block, change_module, healthy_record
from fno_telemetry.diagnosis.growth import Growth, GrowthLimits, find_growth
from fno_telemetry.diagnosis.places import input_place, output_place
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord


@rule(
    about="values",
    yields=2,
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
    each: float = 4.5,
    of_baseline: float = 10,
    gain_of_baseline: float = 4,
    of_scales: float = 3,
    ordinary: float = 10,
    of_input: float = 1e4,
    large: float = 1000,
) -> Iterator[Symptom]:
    """The rms of the values grows too much: in one block, over all blocks together, or in one layer.

    Formula: the gain of a block is rms(y) / rms(x), where x is its input and y its output. If the baseline
        contains the block or layer, one of
        (1) the gain of the block >= `gain_of_baseline` (4) times its value in the baseline;
        (2) the rms of the layer >= `of_baseline` (10) times its value in the baseline;
        and in both the rms is larger than `of_scales` (3) times that of every layer of the baseline, and of
        its input: what starts small grows by learning.
        Otherwise, if the rms of the output (in (4): of the last block) is >= `ordinary` (10), one of
        (3) the gain of the block >= `least_gain` (10), and >= `of_siblings` (5) times the median of the other
            blocks;
        (4) there is no baseline, (3) holds for no block, and the product of the gains of all blocks >=
            `over_depth` (1000), or their geometric mean >= `each` (4.5);
        (5) the rms of the layer >= `of_network` (300) times the median rms of the layers before it, and >=
            `least_gain` times that of its own input.
        If the rms of the model's output is >= `of_input` (10000) times that of its input, >= `large` (1000),
        and >= `of_baseline` times its value in the baseline, the finding is an error, not a warning; where
        none of (1) to (5) holds, it is about the output.
    Default: `of_siblings` is 5, `least_gain` is 10, `of_network` is 300 and `over_depth` is 1000: in healthy
        networks, gains were 0.5 to 3, their geometric mean at most 2.2 (`each` is 4.5), none was more than
        3.6 times the median gain, and the rms of a layer was at most 27 times the median rms of its network.
        `of_baseline` is 10 and `gain_of_baseline` is 4: during healthy training, no rms of a layer grew by
        more than a factor of 5.3 (26 when the baseline is the untrained network), and no gain by more than a
        factor of 1.9. `of_scales` is 3: in networks that were trained for a moment, layers reached 2.5 times
        the largest rms of the untrained network. `ordinary` is 10: after a normalisation layer, values are
        near 1, whatever the scale of its input. `of_input` is 10000 and `large` is 1000: targets are rarely
        that far from the input.
    False alarm when: the scale of the input is very different from that of the training data, or the targets
        are that large.
    """
    limits = GrowthLimits(
        of_siblings=of_siblings,
        gain=least_gain,
        of_network=of_network,
        over_depth=over_depth,
        each=each,
        of_baseline=of_baseline,
        gain_of_baseline=gain_of_baseline,
        ordinary=ordinary,
        of_scales=of_scales,
    )
    excess = _find_excess(record, baseline, of_input, large, of_baseline)
    for growth in list(find_growth(record, baseline, limits)) or ([] if excess is None else [excess]):
        yield Symptom(
            severity="warning" if excess is None else "error",
            place=growth.place,
            message=growth.message,
            evidence=growth.evidence,
            advice="The learning rate is probably too high, or a normalisation layer is missing: lower the "
            "learning rate, clip gradients, or add a normalisation layer before this one.",
            explains=Consequences(about=("values", "gradients"), but_not=("dead_layer", "dead_channels")),
        )


def _find_excess(
    record: CaptureRecord,
    baseline: CaptureRecord | None,
    of_input: float,
    large: float,
    of_baseline: float,
) -> Growth | None:
    """Return the output, if its rms is far beyond that of the input and of the baseline's output."""
    entered, end = input_place(record), output_place(record)
    known = output_place(baseline) if baseline is not None else None
    size = entered.value("rms") if entered is not None else None
    rms = end.value("rms") if end is not None else None
    before = known.value("rms") if known is not None else None
    if (
        end is None
        or not size
        or rms is None
        or rms < max(large, of_input * size, of_baseline * (before or 0))
    ):
        return None
    message = f"has rms {format_number(rms)}; that of the model's input is {format_number(size)} "
    message += f"(ratio: {format_number(rms / size)})"
    return Growth(end, message, {"rms": rms, "of_the_input": size, "of_the_baseline": before})
