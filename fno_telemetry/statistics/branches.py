"""Statistics of a block: its two branches, its residual update and its gain; and the size of an input."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch

from fno_telemetry.quantities import select
from fno_telemetry.records import Value
from fno_telemetry.statistics.activation import Activation
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
from fno_telemetry.statistics.field_energy import NO_ENERGY
from fno_telemetry.statistics.pairs import sum_change, sum_operands
from fno_telemetry.statistics.subjects import BlockCall, BranchSum, ResidualUpdate

_OVERFLOW = "the result overflows float64"


@dataclass(frozen=True)
class BranchState(SummedState):
    """Energies of the spectral operand s and the local operand l, without the mean of each field."""

    fields: torch.Tensor  # the number of fields without non-finite elements in s and l
    energies: torch.Tensor  # of s, l, s + l; the sum of Re(conj(s) l); energies of the means of s and of l


class Branches:
    """The shares of a spectral and a local branch in their sum, measured on its operands."""

    name = "branches"
    of: Of = "branch_sum"
    needs = ()
    quantities = select("spectral_local_ratio", "spectral_share", "branch_cosine", "branch_coherence")

    def measure(self, subject: BranchSum) -> BranchState | Undefined | Empty:
        """Measure two operands of equal shape, without fields that are not finite in either."""
        spectral, local = subject.spectral, subject.local
        if not spectral.sizes:
            return Undefined("no spatial axes are known for the branch sum")
        if spectral.shape != local.shape:
            return Undefined("the branches have different shapes")
        if spectral.count == 0:
            return Empty()
        return BranchState(*sum_operands(spectral, local))

    def summarize(self, state: BranchState, known: Known) -> Summary:
        """Return the shares; an operand that is constant in space has no energy."""
        s, t, both, product, s_dc, t_dc = state.energies.tolist()
        s, t = _remove_rounding(s, s_dc), _remove_rounding(t, t_dc)
        stats: dict[str, Value] = dict.fromkeys(keys_of(self))
        if int(state.fields) == 0:
            return Summary(stats, dict.fromkeys(keys_of(self), "every field holds a non-finite element"))
        if not math.isfinite(s + t + both):
            return Summary(stats, dict.fromkeys(keys_of(self), "the squares overflow float64"))
        if s == 0 and t == 0:
            return Summary(stats, dict.fromkeys(keys_of(self), "both branches are constant in space"))
        stats["spectral_share"] = s / (s + t)
        coherence = math.sqrt(both) / (math.sqrt(s) + math.sqrt(t))
        stats["branch_coherence"] = min(coherence, 1.0)
        reasons = {}
        if t == 0:
            reasons["spectral_local_ratio"] = "the local branch is constant in space"
        else:
            stats["spectral_local_ratio"] = math.sqrt(s) / math.sqrt(t)
        if s == 0 or t == 0:
            reasons["branch_cosine"] = "one branch is constant in space"
        else:
            cosine = product / (math.sqrt(s) * math.sqrt(t))
            stats["branch_cosine"] = max(-1.0, min(cosine, 1.0))
        return Summary(stats, reasons)


@dataclass(frozen=True)
class UpdateState(SummedState):
    """Energies of the change y - x and of x, and the number of their elements."""

    number: torch.Tensor
    energies: torch.Tensor  # of the change, of x


class Updates:
    """The relative change of a residual block's input, at the precision of the block."""

    name = "updates"
    of: Of = "residual_update"
    needs = ()
    quantities = select("update_ratio")

    def measure(self, subject: ResidualUpdate) -> UpdateState | Undefined | Empty:
        """Measure the input and the result of a residual sum, over elements that are finite in both."""
        before, after = subject.before, subject.after
        if before.shape != after.shape:
            return Undefined("the residual sum changed the shape")
        if before.count == 0:
            return Empty()
        return UpdateState(*sum_change(before, after))

    def summarize(self, state: UpdateState, known: Known) -> Summary:
        """Return ||y - x|| / ||x||."""
        if int(state.number) == 0:
            return _undefined("update_ratio", "no element is finite in both")
        change, energy = state.energies.tolist()
        if not math.isfinite(change) or not math.isfinite(energy):
            return _undefined("update_ratio", "the squares overflow float64")
        if energy == 0:
            return _undefined("update_ratio", "the block's input is zero, or its squares underflow float64")
        return Summary({"update_ratio": math.sqrt(change) / math.sqrt(energy)})


@dataclass(frozen=True)
class GainState(SummedState):
    """Norms and numbers of elements of a block's input and output."""

    norms: Annotated[torch.Tensor, MergedBy(torch.hypot)]  # of the input, of the output
    counts: torch.Tensor


class Gains:
    """The rms of a block's output over that of its input."""

    name = "gains"
    of: Of = "block"
    needs = ()
    quantities = select("gain")

    def measure(self, subject: BlockCall) -> GainState:
        """Measure a block's input and output, which may differ in shape."""
        before, after = subject.before, subject.after
        counts = torch.stack((before.finite_count, after.finite_count))
        return GainState(torch.stack((before.norm, after.norm)), counts)

    def summarize(self, state: GainState, known: Known) -> Summary:
        """Return rms(y) / rms(x)."""
        before, after = state.counts.tolist()
        if not before or not after:
            return _undefined("gain", "no element is finite")
        norm_before, norm_after = state.norms.tolist()
        if norm_before == 0:
            return _undefined("gain", "the block's input is zero")
        gain = (norm_after / math.sqrt(after)) / (norm_before / math.sqrt(before))
        return Summary({"gain": gain}) if math.isfinite(gain) else _undefined("gain", _OVERFLOW)


@dataclass(frozen=True)
class InputState(SummedState):
    """Norm and number of finite elements of an input."""

    norm: Annotated[torch.Tensor, MergedBy(torch.hypot)]
    count: torch.Tensor


class Inputs:
    """The size of what a module is given, by which the size of its output can be judged."""

    name = "inputs"
    of: Of = "module_input"
    needs = ()
    quantities = select("input_rms")

    def measure(self, subject: Activation) -> InputState | Empty:
        """Measure the first input of a call, without elements that are not finite."""
        return InputState(subject.norm, subject.finite_count) if subject.count else Empty()

    def summarize(self, state: InputState, known: Known) -> Summary:
        """Return rms(x); |x| of a complex input."""
        count = int(state.count)
        if not count:
            return _undefined("input_rms", "no element is finite")
        rms = float(state.norm) / math.sqrt(count)
        return Summary({"input_rms": rms}) if math.isfinite(rms) else _undefined("input_rms", _OVERFLOW)


def _undefined(key: str, reason: str) -> Summary:
    return Summary({key: None}, {key: reason})


def _remove_rounding(energy: float, dc: float) -> float:
    return energy if energy > NO_ENERGY * (energy + dc) else 0.0
