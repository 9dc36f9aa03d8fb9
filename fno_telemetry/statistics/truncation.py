"""The share of a spectral convolution's input energy that lies outside its modes."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, NamedTuple

import numpy as np
import torch

from fno_telemetry.isolation.function_transforms import unwrap
from fno_telemetry.quantities import select
from fno_telemetry.statistics import reading
from fno_telemetry.statistics.contract import (
    Empty,
    Known,
    MergedBy,
    Of,
    Summary,
    SummedState,
    Undefined,
    keys_of,
)
from fno_telemetry.statistics.field_energy import explain_no_energy
from fno_telemetry.statistics.frequency_grid import frequency_grid
from fno_telemetry.statistics.kernels import Floats
from fno_telemetry.statistics.subjects import SpectralInput


def _join_masks(one: "ModeMasks", other: "ModeMasks") -> "ModeMasks":
    both = {
        shape: one[shape] if one[shape] is other[shape] else one[shape] | other[shape]
        for shape in one.keys() & other.keys()
    }
    return {**one, **other, **both}


ModeMasks = dict[tuple[int, ...], torch.Tensor]
"""Masks over the coefficients of an inverse transform, by their shape: batches may differ in resolution."""


@dataclass(frozen=True)
class TruncationState(SummedState):
    """Energy of the input without its means, and the part of it outside the modes.

    `kept` marks the modes, `removed` the coefficients that a field has before the layer and not after it.
    """

    energies: torch.Tensor  # total, cut off, of the means
    fields: torch.Tensor
    kept: Annotated[ModeMasks, MergedBy(_join_masks, "largest")]
    removed: Annotated[ModeMasks, MergedBy(_join_masks, "largest")]


class Truncation:
    """The energy of a spectral convolution's input outside the modes that it keeps."""

    name = "truncation"
    of: Of = "spectral_input"
    needs = ()
    quantities = select("truncated_energy_fraction")

    def measure(self, subject: SpectralInput) -> TruncationState | Undefined | Empty:
        """Measure the input with a bool mask over the coefficients of the layer's inverse transform.

        A layer that resamples transforms back to another number of points; a mode is the same frequency, in
        cycles per field, in both.
        """
        activation, modes = subject.activation, subject.modes
        if not activation.sizes:
            return Undefined("no spatial axes are known")
        if modes is None:
            return Undefined("the modes that the layer keeps could not be detected")
        if modes.ndim != len(activation.sizes):
            return Undefined("the layer does not transform every spatial axis of its input in one call")
        if subject.transformed and subject.transformed != activation.sizes:
            return Undefined("the layer transforms a field of another size than its input, as after padding")
        if activation.count == 0:
            return Empty()
        real = not activation.complex
        halved = real if subject.halved is None else subject.halved
        if real and subject.mixed:
            return Undefined("the layer makes complex fields of its real input before it transforms them")
        if halved and not real:
            return Undefined("the layer keeps modes of a real field, and its input is complex")
        modes, shape = unwrap(modes), tuple(modes.shape)
        removed = {} if subject.removed is None else {shape: unwrap(subject.removed)}
        if activation.on_host and reading.is_free(modes):
            found = activation.host_energy
            mask = _Mask(modes.to(torch.bool).clone().numpy().tobytes(), shape)
            outside = _weight_outside(mask, halved, activation.sizes, real)
            with np.errstate(invalid="ignore"):
                # Energies may have overflown, and 0 times infinity is invalid.
                total, cut = (found.energies.dot(weight) for weight in (found.grid.host_weight, outside))
            energies = torch.from_numpy(np.array((total, cut, found.dc)))
            return TruncationState(
                energies, torch.from_numpy(np.array(found.fields)), {shape: modes}, removed
            )
        kept = resample_modes(modes.to(activation.device, torch.bool), halved, activation.sizes, real)
        energy = activation.field_energy
        counted = energy.counted
        energies = torch.stack((counted.sum(), (counted * ~kept).sum(), energy.dc))
        return TruncationState(energies, energy.fields, {shape: modes}, removed)

    def summarize(self, state: TruncationState, known: Known) -> Summary:
        """Return the share that is cut off; null if the input has no energy around its means."""
        total, cut, dc = state.energies.tolist()
        reason = explain_no_energy(total, dc, int(state.fields))
        if any((mask & state.kept[shape]).any() for shape, mask in state.removed.items()):
            reason = "the layer has no fixed modes: which coefficients it keeps depends on the data"
        if reason is not None:
            return Summary(dict.fromkeys(keys_of(self)), dict.fromkeys(keys_of(self), reason))
        return Summary({"truncated_energy_fraction": min(cut / total, 1.0)})


class _Mask(NamedTuple):
    """A mask of modes as a key: modules have the same one in every batch."""

    content: bytes
    shape: tuple[int, ...]


@lru_cache(maxsize=64)
def _weight_outside(mask: _Mask, halved: bool, sizes: tuple[int, ...], real: bool) -> Floats:
    """Return the weight of each coefficient outside the modes, 0 for others, in one dimension."""
    modes = torch.from_numpy(np.frombuffer(mask.content, np.bool_).reshape(mask.shape).copy())
    kept = resample_modes(modes, halved, sizes, real)
    grid = frequency_grid(sizes, real, torch.device("cpu"))
    return np.where(kept.numpy().reshape(-1), 0.0, grid.host_weight)


def resample_modes(modes: torch.Tensor, halved: bool, sizes: tuple[int, ...], real: bool) -> torch.Tensor:
    """Return a mask of modes over the coefficients of fields of these sizes.

    `modes` is over the sorted axes of an inverse transform, of `irfftn` if `halved`; the result is over the
    coefficients of `rfftn` if `real`, else of `fftn`. A real field has a mode if it or its mirror image is
    kept.
    """
    kept = _select(modes, halved, sizes, real, 1)
    return kept | _select(modes, halved, sizes, real, -1) if real and not halved else kept


def _select(modes: torch.Tensor, halved: bool, sizes: tuple[int, ...], real: bool, sign: int) -> torch.Tensor:
    selected = modes
    for axis, size in enumerate(sizes):
        last, points = axis == len(sizes) - 1, modes.shape[axis]
        index = torch.arange(size // 2 + 1 if last and real else size, device=modes.device)
        # Signed frequencies, in cycles per field.
        frequency = sign * torch.where(index > size // 2, index - size, index)
        most = points - 1 if last and halved else points // 2
        source = frequency.clamp(-most, most) % points
        inside = (frequency.abs() <= most).reshape(-1, *[1] * (modes.ndim - axis - 1))
        selected = selected.index_select(axis, source) & inside
    return selected
