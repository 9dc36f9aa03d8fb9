"""Statistics of weights: their norm, and how spectral weights are distributed over modes."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch

from fno_telemetry.quantities import select
from fno_telemetry.records import ModeEnergy, Value
from fno_telemetry.statistics.contract import Known, MergedBy, Of, Summary, SummedState, Undefined, keys_of
from fno_telemetry.statistics.norms import frobenius_norm
from fno_telemetry.statistics.subjects import Weights

DEAD_LIMIT = 1e-12
"""A mode with at most this share of the largest mode's energy, a millionth of its amplitude, is dead."""


@dataclass(frozen=True)
class NormState(SummedState):
    """The Frobenius norms of parameters that this process has as a whole, and of its share of spread ones."""

    whole: Annotated[torch.Tensor, MergedBy(torch.maximum)]
    share: Annotated[torch.Tensor, MergedBy(torch.hypot)]


class WeightNorm:
    """The norm of a module's own parameters, with biases, without those of its children."""

    name = "weight_norm"
    of: Of = "weights"
    needs = ()
    quantities = select("weight_norm")

    def measure(self, subject: Weights) -> NormState | None:
        """Measure a module; None if it has no parameters of its own."""
        norms = [
            frobenius_norm(weight) if energies is None else energies.sum().sqrt()
            for weight, energies in subject.energies
        ]
        if not norms:
            return None
        norm = frobenius_norm(torch.stack(norms))
        nothing = torch.zeros_like(norm)
        return NormState(nothing, norm) if subject.is_spread else NormState(norm, nothing)

    def summarize(self, state: NormState, known: Known) -> Summary:
        """Return the norm; null if a parameter is not finite."""
        norm = math.hypot(float(state.whole), float(state.share))
        if not math.isfinite(norm):
            return Summary({"weight_norm": None}, {"weight_norm": "a parameter is not finite"})
        return Summary({"weight_norm": norm})


@dataclass(frozen=True)
class ModesState:
    """Energy per mode of each weight tensor, and how many of its modes exist at the input's resolution."""

    energies: tuple[torch.Tensor, ...]
    reached: tuple[int, ...]


class Modes:
    """The distribution of a spectral layer's weights over modes: complex, as real pairs, or factorised.

    The energy e of a mode is the sum of |w|^2 over channels. `effective_modes` is the participation ratio
    (sum e)^2 / sum e^2 [1]: k equally strong modes give k. `unused_weight_fraction` is the share of weights
    for modes that a field of the input's resolution does not have.

    [1] Bell, Dean: Atomic vibrations in vitreous silica. Discussions of the Faraday Society 50, 1970.
    """

    name = "modes"
    of: Of = "weights"
    needs = ()
    quantities = select("dead_mode_fraction", "effective_modes", "unused_weight_fraction")

    def measure(self, subject: Weights) -> ModesState | Undefined | None:
        """Measure a spectral module; None for any other."""
        if not subject.is_spectral:
            return None
        if subject.is_spread:
            return Undefined("the weights are spread over several processes")
        if subject.modes is None:
            return Undefined("the shape of the input or of its transform is not known")
        energies = tuple(energies for _, energies in subject.energies if energies is not None)
        if not energies:
            return Undefined("the mode axes of the weights could not be recognised from their shapes")
        available = subject.modes.available
        reached = tuple(
            math.prod(min(size, there) for size, there in zip(energy.shape, available, strict=True))
            for energy in energies
        )
        return ModesState(energies, reached)

    def summarize(self, state: ModesState, known: Known) -> Summary:
        """Return the numbers; null if all weights are zero or one is not finite."""
        everything = torch.cat([energy.flatten() for energy in state.energies]).double()
        stats: dict[str, Value] = dict.fromkeys(keys_of(self))
        stats["unused_weight_fraction"] = 1 - sum(state.reached) / everything.numel()
        largest = float(everything.max())
        reason = None
        if not math.isfinite(float(everything.sum())):
            reason = "a weight is not finite"
        elif largest == 0:
            reason = "all weights are zero"
        if reason is not None:
            return Summary(
                stats, dict.fromkeys(keys_of(self)[:2], reason), mode_energy=compute_mode_energy(state)
            )
        shares = everything / largest
        stats["dead_mode_fraction"] = float((shares <= DEAD_LIMIT).double().mean())
        stats["effective_modes"] = float(shares.sum() ** 2 / (shares**2).sum())
        return Summary(stats, mode_energy=compute_mode_energy(state))


def compute_mode_energy(state: ModesState) -> ModeEnergy | None:
    """Return the energy along each mode axis, as shares that sum to 1; None without any energy.

    Several weight tensors, such as those for positive and negative frequencies, are concatenated along the
    first axis.
    """
    energies = [energy.double() for energy in state.energies]
    if len({tuple(energy.shape[1:]) for energy in energies}) > 1:
        return None
    joined = torch.cat(energies)
    total = joined.sum()
    if not 0 < float(total) < math.inf:
        return None
    rows = []
    for axis in range(joined.ndim):
        along = joined.movedim(axis, 0).flatten(1).sum(1) if joined.ndim > 1 else joined
        rows.append(tuple(float(share) for share in along / total))
    return ModeEnergy(tuple(joined.shape), tuple(rows))
