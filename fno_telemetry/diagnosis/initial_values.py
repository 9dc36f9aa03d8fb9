"""Compares parameters with the values that layers start with, from what a report holds of them."""

import math
from statistics import median

from fno_telemetry.records import CaptureRecord, ParameterRecord

LEAST_VALUES = 128
"""Of fewer values too few are near the bounds to tell that none has moved."""

_ROUNDING = 1e-6
_MOST_DECAYED = 0.005  # the share by which weight decay alone may have shrunk them
_NEAR_BOUND = 10.0  # expected values between the largest and the bound: fewer than this but for exp(-10)
_MOST_VALUES = 2**60
_LEAST_LAYERS = 3
_LEAST_BIASES = 4
_BEYOND = 1.01  # times the bound
_ERRORS = 4.0  # standard errors of the rms


def is_as_initialised(parameter: ParameterRecord) -> bool | None:
    """Return whether all known values are those of a usual start; None where that cannot be told.

    Told are three kinds of starts: uniform between -b and b with one of the bounds that PyTorch's layers and
    initialisers take from the shape; complex with parts that are uniform between 0 and any bound, as Fourier
    layers have them; and one value other than zero throughout, as scales and the weights of norms have it.

    A value that is drawn uniformly is as likely next to the bound as elsewhere: of n values some n · d lie
    within a share d of it, half of which cross it when all move by d. That none of them has crossed it, and
    that the rms is that of the uniform distribution, shows that they have moved by less than some 1 / n.
    Normal distributions have no bounds, and so tell nothing.
    """
    sample = parameter.sample
    if sample is None or not _has_values(parameter.shape):
        return None
    long_axes = sum(size > 1 for size in parameter.shape)
    if long_axes == 1 and max(parameter.shape) >= 4 and sample.min == sample.max:
        return True if sample.max != 0 else None
    if len(parameter.shape) < 2 or sample.number < LEAST_VALUES:
        return None
    if parameter.dtype.startswith("complex") and sample.min >= 0:
        return _is_uniform(sample.rms, sample.max, sample.max, sample.number)
    smaller, larger = sorted((sample.max, -sample.min))
    return any(
        smaller >= bound * _least_share(sample.number)
        and _is_uniform(sample.rms, larger, bound, sample.number)
        for bound in _bounds(parameter.shape)
    )


def shows_training(record: CaptureRecord) -> bool:
    """Return whether a parameter has values that it cannot have started with, whatever the others do.

    It is a bias beyond the bounds between which PyTorch draws it, or a weight of a norm whose values differ.
    Weights tell nothing of that: many start normally distributed, and those have no bounds.
    """
    layers = {module.name: module for module in record.modules}
    weights = {one.name: one.shape for one in record.parameters}
    for one in record.parameters:
        name, _, own = one.name.rpartition(".")
        sample, layer = one.sample, layers.get(name)
        if sample is None or layer is None or sample.number < _LEAST_BIASES or sample.min == sample.max:
            continue
        if own == "weight" and layer.role == "norm" and len(one.shape) == 1:
            return True
        shape = weights.get(f"{name}.weight", ())
        if own == "bias" and _is_plain_layer(layer.class_name) and len(shape) > 1 and _has_values(shape):
            bound = _bounds(shape)[0]
            if max(sample.max, -sample.min) > _BEYOND * bound:
                return True
    return False


def compare_with_start(record: CaptureRecord) -> tuple[float, float, int] | None:
    """Return how large the weights are, compared with the smallest and with the largest usual start.

    Both are medians of the weights of linear and convolution layers; their number is the third value. None
    where there are fewer than three.
    """
    layers = {module.name for module in record.modules if _is_plain_layer(module.class_name)}
    found = []
    for one in record.parameters:
        name, _, own = one.name.rpartition(".")
        is_weight = own == "weight" and name in layers and len(one.shape) > 1
        if one.sample is not None and is_weight and _has_values(one.shape):
            usual = [bound / math.sqrt(3) for bound in _bounds(one.shape)]
            found.append((one.sample.rms / min(usual), one.sample.rms / max(usual)))
    if len(found) < _LEAST_LAYERS:
        return None
    over_smallest, over_largest = zip(*found, strict=True)
    return median(over_smallest), median(over_largest), len(found)


def _is_plain_layer(class_name: str) -> bool:
    return class_name == "Linear" or class_name.startswith("Conv")


def _has_values(shape: tuple[int, ...]) -> bool:
    """Whether a tensor of this shape can be in memory; a report from anywhere may say anything."""
    return 0 < math.prod(shape) < _MOST_VALUES


def _bounds(shape: tuple[int, ...]) -> tuple[float, ...]:
    """Return the bounds b of uniform starts: PyTorch's own of layers, Kaiming's, Xavier's and LeCun's."""
    points = math.prod(shape[2:])
    entering, leaving = shape[1] * points, shape[0] * points
    return (
        1 / math.sqrt(entering),
        math.sqrt(6 / entering),
        math.sqrt(6 / (entering + leaving)),
        math.sqrt(3 / entering),
    )


def _is_uniform(rms: float, largest: float, bound: float, number: int) -> bool:
    """Return whether values with this rms, and this largest magnitude, are uniform up to the bound."""
    if not 0 < bound * _least_share(number) <= largest <= bound * (1 + _ROUNDING):
        return False
    # The variance of x² of uniform values is 4/5 of the square of its mean, and the rms has half its error.
    error = 0.5 * math.sqrt(0.8 / number)
    return abs(rms / largest * math.sqrt(3) - 1) <= _ERRORS * error


def _least_share(number: int) -> float:
    return (1 - _NEAR_BOUND / number) * (1 - _MOST_DECAYED)
