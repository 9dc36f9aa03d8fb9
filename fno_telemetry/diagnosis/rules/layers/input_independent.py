"""Finds where the network stops depending on its input."""

from collections.abc import Iterator
from typing import Any

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_module, healthy_record
from fno_telemetry.diagnosis.places import Place, module_places, output_place, select_defined
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord

# Liftings and projections may belong to a second input, such as a time, which is the same for all samples.
_ROLES = frozenset({"spectral", "local", "block"})
_STATISTIC = "relative_sample_variation"


@rule(
    about="values",
    yields=2,
    fires_on=lambda: change_module(healthy_record(), "blocks.1.spectral", relative_sample_variation=0.0),
    silent_on=lambda: change_module(healthy_record(), "blocks.1.act", relative_sample_variation=0.0),
)
def input_independent(
    record: CaptureRecord,
    *,
    baseline: CaptureRecord | None = None,
    lost: float = 5e-5,
    near_zero: float = 1e-6,
    of_baseline: float = 0.25,
) -> Iterator[Symptom]:
    """The output of the model, or of a layer, is (almost) the same for all samples.

    Formula: let v be relative_sample_variation: how much an output differs between samples, divided by how
        much the model's input does. One of
        (1) v of the model's output <= `lost` (5e-5). The finding names the first layer after the last one
            with v > `lost`.
        (2) v of a spectral, local or block layer <= `near_zero` (1e-6).
        (3) if the baseline contains the layer (of any role, or the output), with a value > `near_zero`:
            v <= `of_baseline` (0.25) times its value in the baseline.
    Default: `lost` is 5e-5: v of the output was 0.002 to 0.06 in untrained operators, and 1.3e-4 in an
        untrained stack of 20 convolutions, because biases hide much of the input; in an untrained product
        of three networks it was 1.1e-5, which is reported. `near_zero` is 1e-6, the
        resolution of float32. `of_baseline` is 0.25: during healthy training, v of no layer fell below 0.57
        times its earlier value.
    False alarm when: the samples hardly differ, or the network adds a large constant to its output.
    """
    places: list[tuple[Place[Any], float]] = [*select_defined(module_places(record), _STATISTIC)]
    end = output_place(record)
    left = end.value(_STATISTIC) if end is not None else None
    since: Place[Any] | None = None  # where the output loses the input
    if end is not None and left is not None:
        places.append((end, left))
        if left <= lost:
            alive = [index for index, (_, variation) in enumerate(places) if variation > lost]
            since = places[alive[-1] + 1 if alive else 0][0]
    known = {} if baseline is None else dict(_variations(baseline))
    for place, variation in places:
        before = known.get(place.name)
        fell = before is not None and before > near_zero and variation <= of_baseline * before
        alone = place.role in _ROLES and variation <= near_zero
        if place is not since and not alone and not fell:
            continue
        yield Symptom(
            severity="error" if since is not None else "warning",
            place=place,
            message=_describe(variation, before if fell else None, lost if place is since else near_zero),
            evidence={_STATISTIC: variation, "of_the_output": left, "of_the_baseline": before},
            advice="The values probably consist of little more than biases: check the weights of this layer, "
            "and the normalisation layer or scaling factor before it.",
            explains=Consequences(about=("values",), but_not=("dead_layer",)),
        )


def _describe(variation: float, before: float | None, limit: float) -> str:
    if variation == 0:
        return "has the same values for every sample"
    expected = (
        f"expected: more than {format_number(limit)} times"
        if before is None
        else f"in the baseline: {format_number(before)} times"
    )
    return f"varies between samples only {format_number(variation)} times as much as the input ({expected})"


def _variations(record: CaptureRecord) -> Iterator[tuple[str, float]]:
    """Yield the name and variation of every module and of the output."""
    end = output_place(record)
    ends = [] if end is None else [end]
    for place, variation in [
        *select_defined(module_places(record), _STATISTIC),
        *select_defined(ends, _STATISTIC),
    ]:
        yield place.name, variation
