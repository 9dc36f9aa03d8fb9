"""How two reports compare as documents: numbers to 1e-5, sketches and counts exactly."""

import math
from collections.abc import Collection, Iterator
from typing import Any

# What says how a record was made, not what of.
OTHERWISE = frozenset({"wall_seconds", "overhead", "time", "processes", "process_extremes"})


def list_differences(
    one: Any, other: Any, left_out: Collection[str] = (), least: float = 1e-12, path: str = ""
) -> Iterator[str]:
    """Yield where two documents differ by more than 1e-5 of a number, and by more than `least`."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted((one.keys() | other.keys()) - OTHERWISE - set(left_out)):
            if key in one and key in other:
                yield from list_differences(one[key], other[key], left_out, least, f"{path}.{key}")
            else:
                yield f"{path}.{key}: in one of both"
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other, strict=True)):
            yield from list_differences(*pair, left_out, least, f"{path}[{index}]")
    elif isinstance(one, float) and isinstance(other, float) and "histogram" not in path:
        if not math.isclose(one, other, rel_tol=1e-5, abs_tol=least):
            yield f"{path}: {one} and {other}"
    elif one != other:
        yield f"{path}: {one} and {other}"
