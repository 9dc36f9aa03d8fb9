"""Statistics of the channels: the shares that are dead or constant."""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
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

THRESHOLD = 1e-6
"""A channel is dead if its peak is at most this share of the layer's rms.

It is constant if its range is at most this share of its peak.
"""


@dataclass(frozen=True)
class ChannelState(SummedState):
    """Extremes per channel over samples and space; real and imaginary parts have their own."""

    ends: Annotated[torch.Tensor, MergedBy(torch.maximum)]  # (C, 2 parts + 1): all -low, all high, the peak
    elements: int  # per channel

    def merge(self, other: Any) -> Any:
        """Return the extremes of both data sets."""
        if self.ends.shape != other.ends.shape:
            return Undefined("the number of channels changed between batches")
        return super().merge(other)


class Channels:
    """The shares of channels that are dead, or constant over all samples and positions."""

    name = "channels"
    of: Of = "tensor"
    needs = ("values",)
    quantities = select("dead_channel_fraction", "constant_channel_fraction")

    def measure(self, activation: Activation) -> ChannelState | Undefined | Empty:
        """Measure the extremes of every channel; Undefined without a channel axis or without elements."""
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
        return ChannelState(ends, activation.count // field.shape[1])

    def summarize(self, state: ChannelState, known: Known) -> Summary:
        """Return both shares of the channels that hold a finite element."""
        peak = state.ends[:, -1]
        filled = torch.isfinite(peak)
        number = int(filled.sum())
        if number == 0:
            reason = "no channel holds a finite element"
            return Summary(dict.fromkeys(keys_of(self)), dict.fromkeys(keys_of(self), reason))
        stats: dict[str, Value] = dict.fromkeys(keys_of(self))
        reasons = {}
        rms = known.numbers.get("rms")
        if rms is None:
            reasons["dead_channel_fraction"] = "the layer has no rms"
        else:
            stats["dead_channel_fraction"] = int((filled & (peak <= THRESHOLD * rms)).sum()) / number
        if state.elements < 2:
            reasons["constant_channel_fraction"] = "a channel has only one element"
        else:
            # high - low of each part
            spread = state.ends[:, :-1].reshape(len(peak), 2, -1).sum(1).amax(-1)
            stats["constant_channel_fraction"] = int((filled & (spread <= THRESHOLD * peak)).sum()) / number
        return Summary(stats, reasons)


def _from_rows(activation: Activation) -> ChannelState:
    batch, channels = activation.shape[:2]
    sums = activation.row_sums
    ends = np.empty((channels, 3))
    np.negative(np.minimum.reduce(sums.low.reshape(batch, channels, -1), (0, 2)), out=ends[:, 0])
    np.maximum.reduce(sums.high.reshape(batch, channels, -1), (0, 2), out=ends[:, 1])
    np.maximum(ends[:, 0], ends[:, 1], out=ends[:, 2])
    return ChannelState(torch.from_numpy(ends), activation.count // channels)


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
