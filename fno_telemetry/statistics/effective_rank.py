"""How many directions the channels of an output fill: the effective rank of positions × channels (RankMe)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from fno_telemetry.quantities import select
from fno_telemetry.statistics import kernels, reading
from fno_telemetry.statistics.activation import Activation
from fno_telemetry.statistics.contract import Empty, Known, Of, Summary, SummedState, Undefined
from fno_telemetry.statistics.shares import spread_places

MOST_CHANNELS = 512

FEWEST_POSITIONS, MOST_POSITIONS = 64, 512
"""Positions of each sample that are taken: four for each channel within these bounds.

So at most 4,096 of the eight samples that a capture runs by default. So many of each sample, and not of each
batch, so that no number depends on the size of the batches.
"""

_AT_A_TIME = 1 << 20  # elements of a wide copy

NOISE = 1e-13
"""Eigenvalues up to this share of the largest count as zero.

These are singular values up to 3e-7 of the largest, a few rounding errors of float32.
"""


@dataclass(frozen=True)
class GramState(SummedState):
    """The Gram matrix of the channels: the sum over positions of x times the conjugate of x transposed."""

    gram: torch.Tensor  # (C, C), float64 or complex128

    def merge(self, other: "GramState") -> "GramState | Undefined":
        """Return the matrix of both data sets."""
        if self.gram.shape != other.gram.shape:
            return Undefined("the number of channels changed between batches")
        return GramState(self.gram + other.gram)


class EffectiveRank:
    """exp of the entropy of the singular values of positions × channels, normalised to sum 1 [1].

    k equally strong directions give k. Complex values are taken as they are. Positions with an element that
    is not finite are left out.

    [1] Garrido et al.: RankMe: Assessing the downstream performance of pretrained self-supervised
    representations by their rank. ICML 2023.
    """

    name = "effective_rank"
    of: Of = "operator_output"
    needs = ()
    quantities = select("effective_rank")

    def measure(self, activation: Activation) -> GramState | Undefined | Empty:
        """Measure the Gram matrix in float64; Undefined without a channel axis or with too many channels."""
        if activation.layout.channel is None:
            return Undefined("the tensor has no channel axis")
        if activation.shape[1] > MOST_CHANNELS:
            return Undefined(f"the tensor has more than {MOST_CHANNELS} channels")
        if activation.count == 0:
            return Empty()
        if activation.accumulator != torch.float64:
            return Undefined(f"the device {activation.device.type!r} has no float64")
        if activation.on_host:
            return GramState(torch.from_numpy(_multiply_on_host(activation)))
        return GramState(_multiply_on_device(activation))

    def summarize(self, state: GramState, known: Known) -> Summary:
        """Return the effective rank; null if nothing was measured that is not zero."""
        gram = state.gram.numpy()
        with np.errstate(over="ignore", invalid="ignore"):
            size = float(np.trace(gram).real)
        reason = None
        if not math.isfinite(size):
            reason = "the squares overflow float64"
        elif size == 0:
            reason = "the finite values are zero, or their squares underflow float64"
        if reason is not None:
            return Summary({"effective_rank": None}, {"effective_rank": reason})
        energies = np.linalg.eigvalsh(gram / size)
        singular = np.sqrt(energies[energies > NOISE * energies[-1]])
        shares = singular / singular.sum()
        return Summary({"effective_rank": math.exp(-float((shares * np.log(shares)).sum()))})


@dataclass(frozen=True)
class _Chosen:
    """The fields of an activation, (samples, channels, positions), and the positions that are taken."""

    field: torch.Tensor
    whole: torch.Tensor | None  # (samples, 1, positions): where all channels are finite; None for everywhere
    places: torch.Tensor | None  # None for all

    def parts(self) -> Iterator[torch.Tensor]:
        """Yield (samples, channels, places) of some samples at a time, with 0 where one is left out."""
        for part in self._samples_at_a_time():
            yield self._mask(part, self._take(self.field[part]))

    def parts_on_host(self) -> Iterator[kernels.Array]:
        """Yield the same as arrays."""
        if self.whole is not None or self.places is None or self.field.dtype.itemsize < 4:
            for taken in self.parts():
                yield (taken.float() if taken.dtype.itemsize < 4 else taken).numpy()
            return
        # NumPy takes elements in half of the time.
        rows, places = reading.read(self.field), self.places.numpy()
        for part in self._samples_at_a_time():
            yield rows[part].take(places, 2)

    def _take(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor if self.places is None else tensor.index_select(2, self.places)

    def _mask(self, part: slice, taken: torch.Tensor) -> torch.Tensor:
        return taken if self.whole is None else taken * self._take(self.whole[part])

    def _samples_at_a_time(self) -> Iterator[slice]:
        """Yield slices of so many samples that a wide copy of them takes little memory."""
        samples, channels, positions = self.field.shape
        taken = positions if self.places is None else len(self.places)
        step = max(_AT_A_TIME // (channels * taken), 1)
        for start in range(0, samples, step):
            yield slice(start, start + step)


def _choose(activation: Activation) -> _Chosen:
    samples, channels = activation.shape[:2]
    field, whole, places = activation.stored.reshape(samples, channels, -1), None, None
    most = min(max(4 * channels, FEWEST_POSITIONS), MOST_POSITIONS)
    if field.shape[2] > most:
        places = spread_places(most, field.shape[2], activation.device)
    if activation.finite is not None:
        whole = activation.finite.reshape(field.shape).all(1, keepdim=True)
    return _Chosen(field, whole, places)


def _multiply_on_host(activation: Activation) -> kernels.Array:
    chosen = _choose(activation)
    channels = activation.shape[1]
    gram: kernels.Array = np.zeros((channels, channels), np.complex128 if activation.complex else np.float64)
    for taken in chosen.parts_on_host():
        matrix = taken.transpose(1, 0, 2).astype(gram.dtype, order="C").reshape(channels, -1)
        # Of a real matrix with its own transpose, NumPy computes half of the product.
        with np.errstate(over="ignore", invalid="ignore"):
            gram += matrix @ (matrix.conj() if activation.complex else matrix).T
    return gram


def _multiply_on_device(activation: Activation) -> torch.Tensor:
    chosen = _choose(activation)
    channels = activation.shape[1]
    wide = torch.complex128 if activation.complex else torch.float64
    gram = torch.zeros((channels, channels), dtype=wide, device=activation.device)
    for taken in chosen.parts():
        matrix = taken.transpose(0, 1).to(wide).reshape(channels, -1)
        gram += matrix @ matrix.mH
    return gram
