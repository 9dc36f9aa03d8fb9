"""Variation of a layer's output between samples, which shows whether it still depends on the input."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from fno_telemetry.quantities import select
from fno_telemetry.records import Value
from fno_telemetry.statistics import kernels, reading
from fno_telemetry.statistics.activation import Activation
from fno_telemetry.statistics.contract import Empty, Known, Of, Summary, Undefined, keys_of

_MERGED_AT_A_TIME = 1 << 14  # positions


@dataclass(frozen=True)
class SampleState:
    """The mean of each position (the mean field), the energy around it, and the number of samples."""

    number: torch.Tensor  # per position if non-finite elements were left out, else ()
    mean: torch.Tensor  # (P,); real and imaginary parts are separate positions; (0,) if it is not kept
    deviation_energy: torch.Tensor  # (): sum over positions and samples of (x - mean)^2
    energy: torch.Tensor  # (): sum of x^2, if all elements are finite
    samples: int
    shape: tuple[int, ...]  # of one sample's parts

    @property
    def memory_bytes(self) -> int:
        """The memory that the state uses during the capture."""
        return self.mean.nbytes + self.number.nbytes

    def merge(self, other: "SampleState") -> "SampleState | Undefined":
        """Return the state of both data sets together, position by position [1].

        [1] Chan, Golub, LeVeque: Updating formulae and a pairwise algorithm for computing sample variances.
        """
        if self.shape != other.shape:
            return Undefined("the shape changed between batches")
        if not self.mean.numel() or not other.mean.numel():
            return Undefined("the mean field of a batch was not kept")
        if reading.is_free(self.mean) and self.number.ndim == other.number.ndim == 0:
            return _merge_on_host(self, other)
        number = self.number + other.number
        share = other.number / number.clamp(min=1).to(self.mean.dtype)
        distance = other.mean - self.mean
        between = (distance * distance * (self.number * share)).sum()
        return SampleState(
            number=number,
            mean=self.mean + distance * share,
            deviation_energy=self.deviation_energy + other.deviation_energy + between,
            energy=self.energy + other.energy,
            samples=self.samples + other.samples,
            shape=self.shape,
        )


def _merge_on_host(first: SampleState, second: SampleState) -> SampleState:
    """Merge in blocks that fit in the cache."""
    share = second.samples / (first.samples + second.samples)
    one, other = first.mean.numpy(), second.mean.numpy()
    mean = np.empty_like(one)
    between = 0.0
    for at in range(0, len(one), _MERGED_AT_A_TIME):
        block = slice(at, at + _MERGED_AT_A_TIME)
        distance = other[block] - one[block]
        between += float(distance.dot(distance))
        distance *= share
        np.add(one[block], distance, out=mean[block])
    around = float(first.deviation_energy) + float(second.deviation_energy) + between * first.samples * share
    energy = float(first.energy) + float(second.energy)
    return _make(mean, around, energy, first.samples + second.samples, first.shape)


def _make(
    mean: kernels.Floats, around: float, energy: float, samples: int, shape: tuple[int, ...]
) -> SampleState:
    number, of_mean, of_all = (torch.from_numpy(np.array(one)) for one in (samples, around, energy))
    return SampleState(number, torch.from_numpy(mean), of_mean, of_all, samples, shape)


class Samples:
    """Variation over samples, pooled over all positions, relative to the mean square and to the input."""

    name = "samples"
    of: Of = "tensor"
    needs = ()
    quantities = select("sample_variation", "relative_sample_variation")

    def measure(self, activation: Activation) -> SampleState | Undefined | Empty:
        """Measure the mean field in float64; Undefined without a sample axis or without elements.

        It is kept only if it is to be merged with those of other batches: it is as large as the states of
        all other statistics together.
        """
        if activation.layout.sample is None:
            return Undefined("the tensor has no sample axis")
        if activation.count == 0:
            return Empty()
        finite = activation.finite
        if activation.on_host and finite is None and activation.scale is None:
            return _measure_on_host(activation)
        field = activation.field
        # Real and imaginary parts are separate positions; their variances add up to the variance of z.
        parts = torch.view_as_real(field) if activation.complex else field
        if finite is not None:
            finite = (finite.unsqueeze(-1).expand(parts.shape) if activation.complex else finite).flatten(1)
        mean, energy = _mean_and_energy(parts.flatten(1), finite, activation)
        unit = activation.unit
        samples = torch.full((), activation.samples, dtype=torch.int64, device=activation.device)
        is_kept = not activation.is_only_batch or finite is not None
        return SampleState(
            number=samples if finite is None else finite.sum(0),
            mean=(mean if is_kept else mean[:0].clone()) * unit,
            deviation_energy=energy * unit * unit,
            energy=(energy + activation.samples * mean.dot(mean)) * unit * unit,
            samples=activation.samples,
            shape=tuple(parts.shape[1:]),
        )

    def summarize(self, state: SampleState, known: Known) -> Summary:
        """Return sqrt(variance over samples / mean square) over positions with two or more finite samples."""
        energy = float(state.deviation_energy)
        compared = state.number >= 2
        if state.number.ndim == 0:
            total = float(state.energy)
        else:
            # A position with a single finite sample shows no variation and adds nothing to `energy`.
            total = energy + float((state.number * compared * state.mean.square()).sum())
        reason = None
        if not compared.any():
            reason = "needs at least two samples" + ("" if state.samples < 2 else " that are finite")
        elif not math.isfinite(total):
            reason = "the squares overflow float64"
        elif total == 0:
            reason = "the values are zero, or their squares underflow float64"
        if reason is not None:
            return Summary(dict.fromkeys(keys_of(self)), dict.fromkeys(keys_of(self), reason))
        variation = math.sqrt(energy / total)
        of_input = None if known.input is None else known.input.get("sample_variation")
        stats: dict[str, Value] = {"sample_variation": variation, "relative_sample_variation": None}
        if not of_input:
            return Summary(
                stats, {"relative_sample_variation": "the sample variation of the input is zero or unknown"}
            )
        return Summary(stats | {"relative_sample_variation": variation / of_input})


def _measure_on_host(activation: Activation) -> SampleState:
    field = activation.stored
    parts = torch.view_as_real(field) if activation.complex else field
    rows = reading.read_values(parts).reshape(activation.samples, -1)
    measured = kernels.active().mean_and_energies(rows, keeps_mean=not activation.is_only_batch)
    return _make(*measured, activation.samples, tuple(parts.shape[1:]))


def _mean_and_energy(
    rows: torch.Tensor, finite: torch.Tensor | None, activation: Activation
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean over the first axis and the energy around it, in units of `scale`."""
    samples, positions = rows.shape
    width = min(max(activation.block_elements // samples, 1), positions)
    # Two buffers are shared by all blocks: allocating memory costs more than the sums.
    buffers = torch.empty((2, samples * width), dtype=activation.accumulator, device=rows.device)
    inverse = None if activation.scale is None else 1 / activation.scale
    means, energies = [], []
    for start in range(0, positions, width):
        block = rows[:, start : start + width]
        wide, rest = buffers[:, : block.numel()].view(2, *block.shape)
        wide.copy_(block)
        if inverse is not None:
            wide *= inverse
        if finite is None:
            mean = wide.mean(0)
            torch.sub(wide, mean, out=rest)
        else:
            kept = finite[:, start : start + width]
            mean = wide.sum(0) / kept.sum(0).clamp(min=1)
            torch.sub(wide, mean, out=rest)
            rest *= kept
        means.append(mean)
        energies.append(rest.view(-1).dot(rest.view(-1)))
    return torch.cat(means), torch.stack(energies).sum()
