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
    """Values are so large that their square, or their sum over a field, exceeds the range of the dtype.

    Formula: max(M², M · points) >= `headroom` (1) · (largest finite number of the layer's dtype), where M is
        max |x| and points is the number of points of a field. In half precision (float16, complex32), M² is
        not used, because squares are rare there outside of normalisation layers.
    Default: `headroom` is 1. Normalisation layers square their input and Fourier transforms sum over a field,
        both in the layer's own dtype.
    False alarm when: everything after the layer is computed in a dtype with a larger range, such as float64.
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
            message=f"has values up to {format_number(largest)}; their square, or their sum over a field in "
            f"a Fourier transform, can exceed {format_number(limit)}, the largest {place.entry.dtype} number",
            evidence={"largest": largest, "points": points, "largest_of_dtype": limit},
            advice="The values are too large for this dtype: normalise before this layer, or compute Fourier "
            "transforms and normalisation layers in a dtype with a larger range.",
            explains=Consequences(about=("finiteness",), rules=("overflow_risk", "exploding_activations")),
        )


def _points(place: Place[Any]) -> int:
    return math.prod(place.entry.shape[axis] for axis in place.entry.spatial_axes)
