"""Values that are close to what their number format holds."""

import math
from collections.abc import Iterator
from typing import Any

from fno_telemetry.diagnosis.contract import Symptom
from fno_telemetry.diagnosis.places import Site, tensor_sites
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
    for site in tensor_sites(record):
        low, high = site.value("min"), site.value("max")
        if low is None or high is None:
            continue
        largest, limit = float(max(abs(low), abs(high))), _LARGEST.get(site.entry.dtype, _LARGEST_FLOAT32)
        points = _points(site)
        # A square of half precision is rare and harmless outside of norms; the sum over a field is not.
        square = 0.0 if limit < 1e5 else largest * largest
        reached = max(square, largest * points if points > 1 else 0.0, largest)
        if reached < headroom * limit:
            continue
        yield Symptom(
            severity="warning",
            site=site,
            message=f"reaches {digits(largest)} in {site.entry.dtype}; squared or transformed it overflows",
            evidence={"largest": largest, "points": points, "largest_of_dtype": limit},
            advice="Normalise before this layer, or compute transforms and norms in float32.",
            explains=frozenset({"overflow_risk", "non_finite", "exploding_activations"}),
        )


def _points(site: Site[Any]) -> int:
    return math.prod(site.entry.shape[axis] for axis in site.entry.spatial_axes)
