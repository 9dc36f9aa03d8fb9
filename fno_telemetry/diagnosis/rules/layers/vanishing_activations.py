"""Finds values that shrink too much."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_module, healthy_record
from fno_telemetry.diagnosis.growth import GrowthLimits, find_growth
from fno_telemetry.diagnosis.places import input_place, module_places
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord


@rule(
    about="values",
    yields=2,
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
    """The rms of the values shrinks too much: in one block, over all blocks together, or in one layer.

    Formula: the gain of a block is rms(y) / rms(x), where x is its input and y its output. If the baseline
        contains the block or layer, one of
        (1) the gain of the block <= `gain_of_baseline` (0.25) times its value in the baseline;
        (2) the rms of the layer <= `of_baseline` (0.2) times its value in the baseline.
        Otherwise, if the rms of the output (in (4): of the last block) is <= `ordinary` (0.03), one of
        (3) the gain of the block <= `most_gain` (0.1), and <= `of_siblings` (0.1) times the median of the
            other blocks;
        (4) there is no baseline, (3) holds for no block, and the product of the gains of all blocks <=
            `over_depth` (0.001);
        (5) the rms of the layer <= `of_network` (0.001) times the median rms of the layers before it, and <=
            `most_gain` times that of its own input; spectral layers and projections excepted, because
            spectral weights often start small, and the target sets the scale of the last layer.
        With or without a baseline:
        (6) the rms of the lifting <= `of_input` (0.001) times that of the model's input, and <= `ordinary`.
    Default: `of_siblings` is 0.1, `most_gain` is 0.1, and `of_network`, `over_depth` and `of_input` are
        0.001: in healthy networks, gains were 0.5 to 3 and at least 0.47 times the median gain, the rms of a
        layer was at least 0.03 times the median rms of its network, and the rms of a lifting at least 0.02
        times that of the input. `of_baseline` is 0.2 and `gain_of_baseline` is 0.25: during healthy training,
        no rms of a layer fell below 0.62 times its earlier value, and no gain below 0.57 times. `ordinary` is
        0.03: after a normalisation layer, values are near 1, whatever the scale of its input.
    False alarm when: the scale of the input is very different from that of the training data.
    """
    explained = Consequences(
        about=("values", "gradients"), but_not=("spectral_branch_weak", "spectral_branch_dead")
    )
    advice = (
        "Its weights, or a factor that scales its input, are probably too small, often because weight decay "
        "is too strong: check both."
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
                message=f"has rms {format_number(rms)}; the rms of the model's input is "
                f"{format_number(size)} (ratio: {format_number(rms / size)})",
                evidence={"rms": rms, "of_the_input": size},
                advice=advice,
                explains=explained,
            )
