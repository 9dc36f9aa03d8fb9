"""Statistics of the channels: their sizes, and the shares that are dead, constant or dormant."""

import math
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
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
from fno_telemetry.statistics.kernels import Floats

THRESHOLD = 1e-6
"""A channel is dead if its peak is at most this share of the layer's rms.

It is constant if its range is at most this share of its peak.
"""

DORMANT = 0.025
"""A channel is dormant if its mean |x| is at most this share of the mean over all channels of the layer [1].

[1] Sokar et al.: The dormant neuron phenomenon in deep reinforcement learning. ICML 2023.
"""

MOST_LISTED = 512
"""The rms of each channel is listed for up to so many channels."""

_OVERFLOW = "the result overflows float64"


@dataclass(frozen=True)
class ChannelState(SummedState):
    """Extremes and sums per channel over samples and space; of extremes, each part of z has its own."""

    ends: Annotated[torch.Tensor, MergedBy(torch.maximum)]  # (C, 2 parts + 1): all -low, all high, the peak
    norms: Annotated[torch.Tensor, MergedBy(torch.hypot)]  # (C,): the roots of the sums of |x|^2
    magnitudes: torch.Tensor  # (C,): the sums of |x|
    finite: torch.Tensor  # (C,): the numbers of finite elements
    elements: int  # per channel

    def merge(self, other: Any) -> Any:
        """Return the extremes and sums of both data sets."""
        if self.ends.shape != other.ends.shape:
            return Undefined("the number of channels changed between batches")
        return super().merge(other)


class Channels:
    """The rms of the channels, and the shares that are dead, dormant, or constant over samples and space."""

    name = "channels"
    of: Of = "tensor"
    needs = ("values",)
    quantities = select(
        "dead_channel_fraction",
        "constant_channel_fraction",
        "dormant_fraction",
        "channel_rms_min",
        "channel_rms_max",
        "channel_rms_ratio",
    )

    def measure(self, activation: Activation) -> ChannelState | Undefined | Empty:
        """Measure every channel in one pass; Undefined without a channel axis, Empty without elements."""
        if activation.layout.channel is None:
            return Undefined("the tensor has no channel axis")
        if activation.count == 0:
            return Empty()
        finite = activation.finite
        if activation.on_host and finite is None and not activation.complex:
            return _from_rows(activation)
        field = activation.field
        if activation.complex:
            parts = torch.view_as_real(field)
            low, high = _channel_extremes(parts, _with_last(finite))
            peak = _channel_extremes(activation.values.unsqueeze(-1), _with_last(finite))[1].squeeze(-1)
        else:
            low, high = _channel_extremes(field.unsqueeze(-1), _with_last(finite))
            peak = torch.maximum(high, -low).squeeze(-1)
        precision = activation.accumulator
        ends = torch.cat((-low, high, peak.unsqueeze(-1)), 1).to(precision)
        elements = activation.count // field.shape[1]
        return ChannelState(ends, *_sum_channels(activation), _count_finite(activation), elements)

    def summarize(self, state: ChannelState, known: Known) -> Summary:
        """Return the numbers over the channels that hold a finite element, and the rms of each channel."""
        ends, finite = state.ends.numpy(), state.finite.numpy()
        filled = finite > 0
        number = int(np.count_nonzero(filled))
        if number == 0:
            reason = "no channel holds a finite element"
            return Summary(dict.fromkeys(keys_of(self)), dict.fromkeys(keys_of(self), reason))
        stats: dict[str, Value] = dict.fromkeys(keys_of(self))
        reasons = {}
        peak = ends[:, -1]
        rms = known.numbers.get("rms")
        if rms is None:
            reasons["dead_channel_fraction"] = "the layer has no rms"
        else:
            stats["dead_channel_fraction"] = (
                int(np.count_nonzero(filled & (peak <= THRESHOLD * rms))) / number
            )
        if state.elements < 2:
            reasons["constant_channel_fraction"] = "a channel has only one element"
        else:
            # high - low of each part
            spread = ends[:, :-1].reshape(len(peak), 2, -1).sum(1).max(-1)
            constant = int(np.count_nonzero(filled & (spread <= THRESHOLD * peak)))
            stats["constant_channel_fraction"] = constant / number
        counts = finite[filled]
        magnitudes = state.magnitudes.numpy()[filled] / counts
        mean = float(magnitudes.mean())
        if math.isfinite(mean):
            dormant = int(np.count_nonzero(magnitudes <= DORMANT * mean))
            stats["dormant_fraction"] = dormant / number
        else:
            reasons["dormant_fraction"] = _OVERFLOW
        sizes = state.norms.numpy()[filled] / np.sqrt(counts)
        least, most = float(sizes.min()), float(sizes.max())
        if not math.isfinite(most):
            reasons |= dict.fromkeys(("channel_rms_min", "channel_rms_max", "channel_rms_ratio"), _OVERFLOW)
            return Summary(stats, reasons)
        stats["channel_rms_min"], stats["channel_rms_max"] = least, most
        ratio = most / least if least else math.inf
        if math.isfinite(ratio):
            stats["channel_rms_ratio"] = ratio
        else:
            reasons["channel_rms_ratio"] = "a channel is zero"
        return Summary(stats, reasons, channel_rms=_list_sizes(sizes, filled))


def _list_sizes(sizes: Floats, filled: npt.NDArray[np.bool_]) -> tuple[Value, ...] | None:
    """Return the rms of every channel, None for one without a finite element; None for too many channels."""
    if len(filled) > MOST_LISTED:
        return None
    found = iter(sizes.tolist())
    return tuple(next(found) if holds else None for holds in filled)


def _from_rows(activation: Activation) -> ChannelState:
    batch, channels = activation.shape[:2]
    rows = activation.row_sums

    def over_channels(reduce: Any, of_rows: Floats) -> Any:
        return reduce(of_rows.reshape(batch, channels, -1), (0, 2))

    ends = np.empty((channels, 3))
    np.negative(over_channels(np.minimum.reduce, rows.low), out=ends[:, 0])
    ends[:, 1] = over_channels(np.maximum.reduce, rows.high)
    np.maximum(ends[:, 0], ends[:, 1], out=ends[:, 2])
    if activation.scale is None or activation.precision == torch.float32:
        # Float64 holds the squares of all values of float32.
        norms = torch.from_numpy(np.sqrt(over_channels(np.add.reduce, rows.squares)))
        magnitudes = torch.from_numpy(over_channels(np.add.reduce, rows.magnitudes))
    else:
        norms, magnitudes = _sum_channels(activation)
    elements = activation.count // channels
    finite = torch.from_numpy(np.full(channels, elements))
    return ChannelState(torch.from_numpy(ends), norms, magnitudes, finite, elements)


def _sum_channels(activation: Activation) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the root of the sum of |x|^2 and the sum of |x| of every channel."""
    values = activation.values  # 0 where an element is not finite
    sums = torch.zeros((2, values.shape[1]), dtype=activation.accumulator, device=values.device)
    for samples, channels in activation.field_blocks():
        wide = values[samples, channels].to(activation.accumulator)
        if activation.scale is not None:
            wide = wide * (1 / activation.scale)
        axes = (0, *range(2, wide.ndim))
        sums[0, channels] += wide.square().sum(axes)
        sums[1, channels] += wide.abs().sum(axes)
    return sums[0].sqrt() * activation.unit, sums[1] * activation.unit


def _count_finite(activation: Activation) -> torch.Tensor:
    channels = activation.shape[1]
    if activation.finite is None:
        elements = activation.count // channels
        return torch.full((channels,), elements, dtype=torch.int64, device=activation.device)
    return activation.finite.sum((0, *range(2, activation.finite.ndim)))


def _with_last(finite: torch.Tensor | None) -> torch.Tensor | None:
    return None if finite is None else finite.unsqueeze(-1)


def _channel_extremes(parts: torch.Tensor, finite: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the extremes (C, parts) of fields (B, C, E, *S, parts); (inf, -inf) without finite elements."""
    lows, highs = parts, parts
    if finite is not None:
        lows, highs = torch.where(finite, parts, torch.inf), torch.where(finite, parts, -torch.inf)
    # Samples first and space last: reductions along contiguous memory are several times as fast.
    low, high = (end.flatten(1, -2).transpose(1, 2).contiguous() for end in (lows.amin(0), highs.amax(0)))
    return low.amin(2), high.amax(2)
