"""Where the network stops depending on its input."""

from collections.abc import Iterator
from typing import Any

from fno_telemetry.diagnosis.contract import OF_VALUES, Symptom
from fno_telemetry.diagnosis.places import Place, module_places, output_place, select_defined
from fno_telemetry.diagnosis.wording import digits
from fno_telemetry.records import CaptureRecord

# Liftings and projections may belong to a second input, a time for one, which is the same for all samples.
_ROLES = frozenset({"spectral", "local", "block"})
_STATISTIC = "relative_sample_variation"


def input_independent(
    record: CaptureRecord,
    *,
    baseline: CaptureRecord | None = None,
    lost: float = 5e-5,
    near_zero: float = 1e-6,
    of_baseline: float = 0.25,
) -> Iterator[Symptom]:
    """The output, or a branch, is the same whatever goes in; said of the layer behind which it is.

    Formula: relative_sample_variation, how much a layer differs between samples beside how much the input
    does. The output's <= lost: the finding is at the first layer behind the last one above the limit. A
    spectral, local or block layer's <= near_zero: a finding of its own. Any layer's <= of_baseline times
    its own in the baseline.
    Default: lost 5e-5. Untrained operators had 0.002 to 0.06, an untrained stack of 20 convolutions 1.3e-4:
    their biases hide much of the input; near_zero 1e-6, the resolution of float32; of_baseline 0.25: in the
    course of a healthy training no layer fell below 0.57 of before.
    Wrong when: the samples hardly differ, or a network adds something large and constant to its output.
    """
    places: list[tuple[Place[Any], float]] = [*select_defined(module_places(record), _STATISTIC)]
    end = output_place(record)
    left = end.value(_STATISTIC) if end is not None else None
    since: Place[Any] | None = None  # where the input is lost for the output
    if end is not None and left is not None:
        places.append((end, left))
        if left <= lost:
            alive = [index for index, (_, variation) in enumerate(places) if variation > lost]
            since = places[alive[-1] + 1 if alive else 0][0]
    known = {} if baseline is None else dict(_places(baseline))
    for place, variation in places:
        before = known.get(place.name)
        fell = before is not None and variation <= of_baseline * before
        alone = place.role in _ROLES and variation <= near_zero
        if place is not since and not alone and not fell:
            continue
        yield Symptom(
            severity="error" if since is not None else "warning",
            place=place,
            message=_message(variation, before if fell else None),
            evidence={_STATISTIC: variation, "of_the_output": left, "of_the_baseline": before},
            advice="Little but biases is left: look at the weights here, and at the norm or scale before.",
            explains=OF_VALUES - {"dead_layer"},
        )


def _message(variation: float, before: float | None) -> str:
    if variation == 0:
        return "is the same for every sample"
    since = "" if before is None else f"; in the baseline {digits(before)} times"
    return f"varies between samples only {digits(variation)} times as much as the input{since}"


def _places(record: CaptureRecord) -> Iterator[tuple[str, float]]:
    """Yield the place and variation of every module and of the output."""
    end = output_place(record)
    ends = [] if end is None else [end]
    for place, variation in [
        *select_defined(module_places(record), _STATISTIC),
        *select_defined(ends, _STATISTIC),
    ]:
        yield place.name, variation
