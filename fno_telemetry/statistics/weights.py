"""Statistics of weights: their norm, and how spectral weights are distributed over modes."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils import parametrize

from fno_telemetry.isolation.random_states import RandomStates
from fno_telemetry.quantities import select
from fno_telemetry.records import ModeEnergy, Value
from fno_telemetry.statistics import reading
from fno_telemetry.statistics.contract import Known, Of, Summary, Undefined, keys_of
from fno_telemetry.statistics.norms import frobenius_norm
from fno_telemetry.statistics.subjects import Weights

DEAD_LIMIT = 1e-12
"""A mode with at most this share of the largest mode's energy, a millionth of its amplitude, is dead."""

_LEAST, _MOST = 1e-20, 1e30
"""Energies between which float32 loses no square that matters, at least 1e-12 of the largest."""

_SUMMED = 256
"""Numbers of which float32 adds up the squares one by one to six digits."""


@dataclass(frozen=True)
class NormState:
    """The Frobenius norm of all parameters."""

    norm: torch.Tensor


class WeightNorm:
    """The norm of a module's own parameters, with biases, without those of its children."""

    name = "weight_norm"
    of: Of = "weights"
    needs = ()
    quantities = select("weight_norm")

    def measure(self, subject: Weights) -> NormState | None:
        """Measure a module; None if it has no parameters of its own."""
        norms = [frobenius_norm(tensor) for tensor in own_weights(subject.module)]
        return NormState(frobenius_norm(torch.stack(norms))) if norms else None

    def summarize(self, state: NormState, known: Known) -> Summary:
        """Return the norm; null if a parameter is not finite."""
        norm = float(state.norm)
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
        if subject.modes is None:
            return Undefined("the shape of the input or of its transform is not known")
        module, available, channels = subject.module, subject.modes.available, subject.modes.channels
        spectral_weights = [
            weight
            for tensor in own_weights(module)
            if (weight := _over_modes(tensor, channels, len(available))) is not None
        ]
        if not spectral_weights:
            return Undefined("the mode axes of the weights could not be recognised from their shapes")
        energies = tuple(_energy(weight, len(available)) for weight in spectral_weights)
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


def own_weights(module: nn.Module) -> Iterator[torch.Tensor]:
    """Yield a module's own weights as it uses them, also those in lists, factorised or parametrized."""
    for parameter in module.parameters(recurse=False):
        yield parameter.detach()
    if parametrize.is_parametrized(module):
        # The module uses the weight that the parametrization computes.
        for name, parametrization in module.parametrizations.items():  # type: ignore[union-attr,operator]
            with _kept(parametrization):
                weight = getattr(module, name).detach()
            yield weight
    for child in module.children():
        if isinstance(child, nn.ParameterList | nn.ParameterDict):
            values = child.values() if isinstance(child, nn.ParameterDict) else child
            yield from (value.detach() for value in values if isinstance(value, torch.Tensor))
        elif callable(dense := getattr(child, "to_tensor", None)):
            yield dense().detach()


@contextmanager
def _kept(parametrization: nn.Module) -> Iterator[None]:
    """Run the block with a parametrization in eval mode: in training it may change itself at each use."""
    modes = [(module, module.training) for module in parametrization.modules()]
    states = RandomStates()
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        states.put_back()


def _over_modes(tensor: torch.Tensor, channels: tuple[int, int], axes: int) -> torch.Tensor | None:
    """Return spectral weights as complex numbers with modes along the last `axes` axes; None for others.

    None also where the sizes allow more than one reading: channels and modes in another order, or fewer axes
    of modes, as in a layer that transforms one axis after the other.
    """
    into, out = channels
    if not tensor.is_complex():
        if tensor.ndim < 2 or tensor.shape[-1] != 2 or not tensor.is_floating_point():
            return None
        tensor = torch.view_as_complex(tensor.float().contiguous())
    if tensor.ndim <= axes:
        return None
    front = tuple(tensor.shape[: tensor.ndim - axes])
    dense = front in ((into, out), (out, into))
    depthwise = into == out and front == (into,)
    if not (dense or depthwise) or math.prod(tensor.shape[tensor.ndim - axes :]) < 2:
        return None
    if dense and len({*tensor.shape}) == 1:
        return None
    if depthwise and not dense and tensor.shape[1] == into:
        return None
    return tensor


def _energy(weight: torch.Tensor, axes: int) -> torch.Tensor:
    """Return the sum of |w|^2 over all axes but the last `axes`."""
    parts = torch.view_as_real(weight.resolve_conj())
    front = weight.ndim - axes
    if reading.is_free(parts) and parts.dtype == torch.float32 and weight.shape[front - 1] <= _SUMMED:
        squares = parts.square().flatten(0, front - 2) if front > 1 else parts.square().unsqueeze(0)
        narrow = squares.sum(1).to(torch.float64).sum((0, -1))
        if _LEAST < float(narrow.amax()) < _MOST:
            return narrow
    summed = (*range(front), weight.ndim)
    wide = torch.float32 if weight.device.type == "mps" else torch.float64
    norms: torch.Tensor = torch.linalg.vector_norm(parts, dim=summed, dtype=wide)
    return norms**2
