"""The loops over all elements of a tensor in host memory: with torch and NumPy, or compiled by numba.

They are chosen here and nowhere else: compiled if the extra `fast` is installed. The environment variable
FNO_TELEMETRY_KERNELS is "torch" or "numba" to insist on one of them.
"""

from fno_telemetry.statistics.kernels.choice import active, kernels_in_use, using
from fno_telemetry.statistics.kernels.narrow_values import NarrowValues, Values
from fno_telemetry.statistics.kernels.signatures import Array, Floats, Integers, Kernels, RowSums

__all__ = [
    "Array",
    "Floats",
    "Integers",
    "Kernels",
    "NarrowValues",
    "RowSums",
    "Values",
    "active",
    "kernels_in_use",
    "using",
]
