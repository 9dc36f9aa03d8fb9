"""Values that are close to what their number format holds."""

import math
from collections.abc import Iterator
from typing import Any

from fno_telemetry.diagnosis.contract import Symptom
from fno_telemetry.diagnosis.places import Place, tensor_places
from fno_telemetry.diagnosis.wording import digits
from fno_telemetry.records import CaptureRecord

_LARGEST = {"float16": 65504.0, "complex32": 65504.0, "float64": 1.8e308, "complex128": 1.8e308}
_LARGEST_FLOAT32 = 3.4e38


def overflow_risk(record: CaptureRecord, *, headroom: float = 1.0) -> Iterator[Symptom]:
    """The square of a value, or a Fourier transform's sum over a field, leaves the number format.

    Formula: max |x|^2 or max |x| times the number of points, whichever is larger, >= headroom times the
    largest finite number of the layer's dtype. Half precision: in layers with spatial axes only.
    Default: 1. Norms square their input and transforms sum a field, both in the layer's own precision.
    Wrong when: everything behind the layer is computed in a wider format.
    """
    for place in tensor_places(record):
        low, high = place.value("min"), place.value("max")
        if low is None or high is None:
            continue
        largest, limit = float(max(abs(low), abs(high))), _LARGEST.get(place.entry.dtype, _LARGEST_FLOAT32)
        points = _points(place)
        # A square of half precision is rare and harmless outside of norms; the sum over a field is not.
        square = 0.0 if limit < 1e5 else largest * largest
        reached = max(square, largest * points if points > 1 else 0.0, largest)
        if reached < headroom * limit:
            continue
        yield Symptom(
            severity="warning",
            place=place,
            message=f"reaches {digits(largest)} in {place.entry.dtype}; squared or transformed it overflows",
            evidence={"largest": largest, "points": points, "largest_of_dtype": limit},
            advice="Normalise before this layer, or compute transforms and norms in float32.",
            explains=frozenset({"overflow_risk", "non_finite", "exploding_activations"}),
        )


def _points(place: Place[Any]) -> int:
    return math.prod(place.entry.shape[axis] for axis in place.entry.spatial_axes)
