"""Finds values that are close to the largest number of their format."""

import math
from collections.abc import Iterator
from typing import Any

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_module, healthy_record
from fno_telemetry.diagnosis.places import Place, tensor_places
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord

_LARGEST = {"float16": 65504.0, "complex32": 65504.0, "float64": 1.8e308, "complex128": 1.8e308}
_LARGEST_FLOAT32 = 3.4e38


@rule(
    about="values",
    fires_on=lambda: change_module(healthy_record(), "blocks.1.local", max=4e19),
    silent_on=lambda: change_module(healthy_record(), "blocks.1.local", max=1e18),
)
def overflow_risk(record: CaptureRecord, *, headroom: float = 1.0) -> Iterator[Symptom]:
    """The square of a value, or a Fourier transform's sum over a field, exceeds the number format.

    Formula: max |x|^2 or max |x| times the number of points, whichever is larger, >= headroom times the
    largest finite number of the layer's dtype. In half precision the square is left out.
    Default: headroom 1. Norms square their input and transforms sum a field, both in the layer's own
    precision.
    Wrong when: everything after the layer is computed in a wider format.
    """
    for place in tensor_places(record):
        low, high = place.value("min"), place.value("max")
        if low is None or high is None:
            continue
        largest, limit = float(max(abs(low), abs(high))), _LARGEST.get(place.entry.dtype, _LARGEST_FLOAT32)
        points = _points(place)
        # A square in half precision is rare and harmless outside of norms; the sum over a field is not.
        square = 0.0 if limit < 1e5 else largest * largest
        reached = max(square, largest * points if points > 1 else 0.0, largest)
        if reached < headroom * limit:
            continue
        yield Symptom(
            severity="warning",
            place=place,
            message=f"reaches {format_number(largest)} in {place.entry.dtype}: squared, or summed over a "
            f"field by a Fourier transform, it can exceed the largest number {format_number(limit)}",
            evidence={"largest": largest, "points": points, "largest_of_dtype": limit},
            advice="The values are too large for this precision: normalise before this layer, or compute "
            "transforms and norms in a wider format.",
            explains=Consequences(about=("finiteness",), rules=("overflow_risk", "exploding_activations")),
        )


def _points(place: Place[Any]) -> int:
    return math.prod(place.entry.shape[axis] for axis in place.entry.spatial_axes)
