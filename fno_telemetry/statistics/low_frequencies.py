"""The lowest coefficients of fields, both signs, and what flips and swaps of axes make of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations, product

import torch

from fno_telemetry.statistics.activation import Activation

_CYCLES = {1: 16, 2: 8, 3: 4}  # per field, by the number of axes
_CHANNELS = {1: 4, 2: 4, 3: 2}


@dataclass(frozen=True)
class LowFrequencies:
    """Coefficients (samples, channels, *frequencies) of fields of `sizes`, in the order of torch.fft.fft.

    Of many channels, evenly spread ones are there.
    """

    sizes: tuple[int, ...]
    real: bool
    values: torch.Tensor


@dataclass(frozen=True)
class Order:
    """An order of spatial axes: axis i is `axes[i]` of a field, read backwards if `flipped[i]`."""

    axes: tuple[int, ...]
    flipped: tuple[bool, ...]

    @property
    def is_as_given(self) -> bool:
        """Whether it changes nothing."""
        return self.axes == tuple(range(len(self.axes))) and not any(self.flipped)

    def apply(self, coefficients: torch.Tensor) -> torch.Tensor:
        """Return the coefficients (…, *frequencies) of fields in this order, but for the phase of a shift."""
        first = coefficients.ndim - len(self.axes)
        found = coefficients.permute(*range(first), *(first + axis for axis in self.axes))
        for axis, is_flipped in enumerate(self.flipped, first):
            if is_flipped:
                zero, rest = found.narrow(axis, 0, 1), found.narrow(axis, 1, found.shape[axis] - 1)
                found = torch.cat((zero, rest.flip(axis)), axis)
        return found


def list_orders(sizes: Sequence[int]) -> Iterator[Order]:
    """Yield every order in which a field keeps its sizes, first the one that changes nothing."""
    for axes in permutations(range(len(sizes))):
        if [sizes[axis] for axis in axes] == list(sizes):
            yield from (Order(axes, flipped) for flipped in product((False, True), repeat=len(sizes)))


def find_low_frequencies(activation: Activation) -> LowFrequencies | None:
    """Return the coefficients of a tensor's fields; None unless it has samples and one to three axes."""
    sizes = tuple(activation.sizes)
    if activation.layout.sample is None or len(sizes) not in _CYCLES or not activation.count:
        return None
    fields = activation.field.flatten(1, 2)
    most = _CHANNELS[len(sizes)]
    if fields.shape[1] > most:
        fields = fields[:, torch.arange(most, device=fields.device) * fields.shape[1] // most]
    wide = (
        fields if fields.device.type == "mps" else fields.to(torch.promote_types(fields.dtype, torch.float64))
    )
    space = tuple(range(2, fields.ndim))
    values = torch.fft.fftn(wide, dim=space, norm="forward")
    for axis, size in zip(space, sizes, strict=True):
        highest = min(_CYCLES[len(sizes)], (size - 1) // 2)
        low = values.narrow(axis, 0, highest + 1)
        values = torch.cat((low, values.narrow(axis, size - highest, highest)), axis)
    return LowFrequencies(sizes, not activation.complex, values)
