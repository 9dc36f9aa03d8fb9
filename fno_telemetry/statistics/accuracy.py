"""How the output of a model compares with its target: over all elements, by sample, channel and frequency."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch

from fno_telemetry.quantities import select
from fno_telemetry.statistics.activation import Activation
from fno_telemetry.statistics.compared_bands import (
    BandState,
    BandSums,
    describe_bands,
    explain_undefined,
    name_resolution,
)
from fno_telemetry.statistics.compared_channels import ChannelSums, list_channels, relate_to_means
from fno_telemetry.statistics.contract import (
    Empty,
    Known,
    MergedBy,
    Of,
    Summary,
    SummedState,
    Undefined,
    keys_of,
    merge_states,
)
from fno_telemetry.statistics.subjects import Comparison


@dataclass(frozen=True)
class SampleErrors(SummedState):
    """The sum of ‖output - target‖ / ‖target‖ over samples whose target is not zero, and how many are."""

    samples: torch.Tensor
    zero: torch.Tensor
    relative: torch.Tensor


@dataclass(frozen=True)
class AccuracyState(SummedState):
    """Norms over all elements, and what is known of samples, channels and bands."""

    nonfinite: torch.Tensor  # elements of both that are not finite
    norms: Annotated[torch.Tensor, MergedBy(torch.hypot)]  # of the error, of the output, of the target
    samples: Annotated[SampleErrors | Undefined, MergedBy(merge_states, "state")]
    channels: Annotated[ChannelSums | Undefined, MergedBy(merge_states, "state")]
    bands: Annotated[BandState | Undefined, MergedBy(merge_states, "state")]


class Accuracy:
    """The error of an output, whole and by frequency [1], and what of the target it has.

    [1] The energies of all bands sum to the squared error, by Parseval's theorem.
    """

    name = "accuracy"
    of: Of = "comparison"
    needs = ()
    quantities = select(
        "relative_l2",
        "relative_l2_mean",
        "error_to_mean_predictor",
        "output_to_target_rms",
        "effective_resolution",
    )

    def measure(self, subject: Comparison) -> AccuracyState | Empty:
        """Measure an output and its target in float64, or in the widest type that the device has."""
        if subject.output.count == 0:
            return Empty()
        return _measure(subject.output, subject.target)

    def summarize(self, state: AccuracyState, known: Known) -> Summary:
        """Return the errors; all are null if any element of both is not finite."""
        error, output, target = state.norms.tolist()
        reason = None
        if count := int(state.nonfinite):
            reason = f"{count:,} elements of the output and the target are not finite"
        elif not math.isfinite(error + output + target):
            reason = "the norms overflow float64"
        elif target == 0:
            reason = "the target is zero, or its squares underflow float64"
        if reason is not None:
            names = keys_of(self)
            return Summary(dict.fromkeys(names), dict.fromkeys([*names, "bands", "channels"], reason))
        bands, channels = describe_bands(state.bands), list_channels(state.channels)
        # A text is the reason why a number is undefined.
        found: dict[str, float | str] = {
            "relative_l2": error / target,
            "relative_l2_mean": _mean_over_samples(state.samples),
            "error_to_mean_predictor": relate_to_means(state.channels, error, target),
            "output_to_target_rms": output / target,
            "effective_resolution": bands if isinstance(bands, str) else name_resolution(bands),
        }
        reasons = {name: value for name, value in found.items() if isinstance(value, str)}
        if isinstance(bands, str):
            reasons["bands"] = bands
        else:
            reasons |= explain_undefined(bands)
        if isinstance(channels, str):
            reasons["channels"] = channels
        elif None in channels:
            reasons["channels"] = "the target of a channel that is null is zero"
        return Summary(
            {name: None if isinstance(value, str) else value for name, value in found.items()},
            reasons,
            accuracy_bands=None if isinstance(bands, str) else bands,
            accuracy_channels=None if isinstance(channels, str) else channels,
        )


def _measure(output: Activation, target: Activation) -> AccuracyState:
    wide = torch.promote_types(output.field.dtype, target.field.dtype)
    wide = torch.promote_types(wide, output.accumulator)
    unit = None if _squares_fit(output) and _squares_fit(target) else torch.maximum(output.unit, target.unit)

    def widen(field: torch.Tensor) -> torch.Tensor:
        return field.to(wide) if unit is None else field.to(wide) / unit

    blocks = list(output.field_blocks())
    batch, channels = output.field.shape[:2]
    mean = torch.zeros(channels, dtype=wide, device=output.device)
    for block in blocks:
        mean[block[1]] += widen(target.field[block]).flatten(2).sum(2).sum(0)
    elements = output.count // channels
    mean /= elements
    # Of the error, the output, the target, and the target around its means, by sample and channel.
    energies = torch.zeros((4, batch, channels), dtype=output.accumulator, device=output.device)
    bands = BandSums(output.sizes, not wide.is_complex, energies) if output.sizes else None
    for block in blocks:
        z, y = widen(output.field[block]), widen(target.field[block])
        around = y - mean[block[1]].reshape(-1, *[1] * (y.ndim - 2))
        for row, field in zip(energies, (z - y, z, y, around), strict=True):
            row[block] = field.abs().square().flatten(2).sum(2)
        if bands is not None:
            bands.add(z, y)
    scale = torch.ones_like(energies[0, 0, 0]) if unit is None else unit.to(energies.dtype)
    return AccuracyState(
        nonfinite=2 * output.count - output.finite_count - target.finite_count,
        norms=energies[:3].flatten(1).sum(1).sqrt() * scale,
        samples=_sum_samples(energies, output),
        channels=ChannelSums(
            elements=torch.full((), elements, dtype=torch.int64, device=output.device),
            mean=mean * scale,
            around=energies[3].sum() * scale.square(),
            norms=energies[1:3].sum(1).sqrt() * scale,
        ),
        bands=Undefined("no spatial axes are known")
        if bands is None
        else BandState(output.sizes, output.complex, bands.by_band() * scale.square()),
    )


def _sum_samples(energies: torch.Tensor, output: Activation) -> SampleErrors | Undefined:
    if output.layout.sample is None:
        return Undefined("the output has no sample axis")
    error, _, target, _ = energies.sum(2)
    zero = target == 0
    relative = torch.where(zero, 0, error / torch.where(zero, 1, target)).sqrt()
    samples = torch.full((), output.samples, dtype=torch.int64, device=output.device)
    return SampleErrors(samples, torch.count_nonzero(zero), relative.sum())


def _squares_fit(activation: Activation) -> bool:
    """Return whether the accumulator holds the squares of all values of this type."""
    narrow = activation.field.dtype in (torch.float32, torch.complex64)
    return narrow and activation.accumulator == torch.float64


def _mean_over_samples(state: SampleErrors | Undefined) -> float | str:
    if isinstance(state, Undefined):
        return state.reason
    if zero := int(state.zero):
        return f"the target of {zero:,} of {int(state.samples):,} samples is zero"
    return float(state.relative) / int(state.samples)
