"""The legacy formulas of an earlier script: one value per batch, only for `layers` in the report.

They allow comparison with old numbers. `low_freq_ratio` is not a fraction: it is 66 for a constant field of
64 x 64 points. The share of low frequencies is `low_frequency_fraction` in `modules`.
"""

from dataclasses import dataclass

import torch

from fno_telemetry.statistics.activation import Activation, Layout
from fno_telemetry.statistics.sketch import magnitude_quantiles
from fno_telemetry.statistics.values import ValueState

KEYS = ("mean", "std", "p50", "p95", "p99", "sparsity", "low_freq_ratio")


@dataclass(frozen=True)
class LegacyState:
    """One row of `KEYS` per batch; NaN means null."""

    rows: torch.Tensor  # (batches, keys), float64
    rectifying: bool
    images: bool

    def merge(self, other: "LegacyState") -> "LegacyState":
        """Return the rows of both, in order."""
        return LegacyState(
            torch.cat((self.rows, other.rows)),
            self.rectifying or other.rectifying,
            self.images or other.images,
        )

    def columns(self) -> dict[str, tuple[float | None, ...]]:
        """Return the values of each key by batch; `sparsity` and `low_freq_ratio` only if they apply."""
        left_out = set() if self.rectifying else {"sparsity"}
        left_out |= set() if self.images else {"low_freq_ratio"}
        rows = torch.where(torch.isfinite(self.rows), self.rows, torch.nan).tolist()
        columns = dict(zip(KEYS, zip(*rows, strict=True), strict=True))
        return {
            key: tuple(None if value != value else value for value in values)
            for key, values in columns.items()
            if key not in left_out
        }


def measure(tensor: torch.Tensor, activation: Activation, state: ValueState, rectifying: bool) -> LegacyState:
    """Measure one batch; `state` is its state of `values`, `rectifying` whether `sparsity` applies."""
    count = state.finite.to(state.mean.dtype)
    mean = state.absolute_sum / count
    variance = state.deviation.square() / count
    # If all values have one sign, |x| has the variance of x, without cancellation.
    one_sided = (state.low >= 0) | (state.high <= 0)
    of_magnitudes = (variance + state.mean.square() - mean.square()).clamp(min=0)
    std = (torch.where(one_sided, variance, of_magnitudes) * count / (count - 1)).sqrt()
    percentiles = magnitude_quantiles(state.sketch, (50, 95, 99))
    images = tensor.ndim == 4
    ratio = _low_frequency_ratio(tensor, activation) if images else torch.full_like(mean, torch.nan)
    row = torch.stack((mean, std, *percentiles, (state.zero + state.negative) / count, ratio))
    # In the earlier script a single non-finite element made every value NaN or infinite.
    row = torch.where(state.finite == state.count, row, torch.nan)
    return LegacyState(row.unsqueeze(0), rectifying, images)


def _low_frequency_ratio(tensor: torch.Tensor, activation: Activation) -> torch.Tensor:
    if activation.complex or tensor.numel() == 0:
        return torch.full((), torch.nan, dtype=activation.accumulator, device=activation.device)
    if activation.layout.space != (2, 3) or activation.layout.unflattened:
        activation = Activation(tensor, Layout(sample=0, channel=1, space=(2, 3)))
    energy = activation.field_energy
    power = energy.grid.clone()
    power[0, 0] = energy.dc
    height, width = power.shape
    return power[: max(1, height // 8), : max(1, width // 8)].mean() / power.mean()
