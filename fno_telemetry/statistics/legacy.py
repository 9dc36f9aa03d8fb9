"""The legacy formulas of an earlier script: one value per batch, only for `layers` in the report.

They allow comparison with old numbers. `low_freq_ratio` is not a fraction: it is 66 for a constant field of
64 x 64 points. The share of low frequencies is `low_frequency_fraction` in `modules`.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from fno_telemetry.statistics.activation import Activation, Layout
from fno_telemetry.statistics.sketch import magnitude_quantiles
from fno_telemetry.statistics.values import ValueState

KEYS = ("mean", "std", "p50", "p95", "p99", "sparsity", "low_freq_ratio")
_PERCENTS = (50, 95, 99)


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
    images = tensor.ndim == 4
    ratio = _low_frequency_ratio(tensor, activation) if images else math.nan
    row = _row_on_host(state, ratio) if activation.on_host else _row_on_device(state, ratio)
    return LegacyState(row.unsqueeze(0), rectifying, images)


def _row_on_host(state: ValueState, ratio: float | torch.Tensor) -> torch.Tensor:
    finite, _, zero, negative = state.numbers.tolist()
    # In the earlier script a single non-finite element made every value NaN or infinite.
    if finite < max(state.count, 1):
        return torch.full((len(KEYS),), torch.nan, dtype=torch.float64, device="cpu")
    low, high = state.extremes.tolist()
    mean, deviation, absolute, _ = state.moments.tolist()
    variance, of_magnitudes = deviation * deviation / finite, absolute / finite
    if low < 0 < high:
        variance = max(variance + mean * mean - of_magnitudes * of_magnitudes, 0.0)
    std = math.sqrt(variance * finite / (finite - 1)) if finite > 1 else math.nan
    percentiles = magnitude_quantiles(state.sketch, _PERCENTS).tolist()
    row = (of_magnitudes, std, *percentiles, (zero + negative) / finite, float(ratio))
    return torch.from_numpy(np.array(row, np.float64))


def _row_on_device(state: ValueState, ratio: float | torch.Tensor) -> torch.Tensor:
    finite, _, zero, negative = state.numbers
    signed_mean, deviation, absolute, _ = state.moments
    count = finite.to(deviation.dtype)
    mean = absolute / count
    variance = deviation.square() / count
    # If all values have one sign, |x| has the variance of x, without cancellation.
    one_sided = (state.extremes[0] >= 0) | (state.extremes[1] <= 0)
    of_magnitudes = (variance + signed_mean.square() - mean.square()).clamp(min=0)
    std = (torch.where(one_sided, variance, of_magnitudes) * count / (count - 1)).sqrt()
    percentiles = magnitude_quantiles(state.sketch, _PERCENTS)
    last = ratio if isinstance(ratio, torch.Tensor) else torch.full_like(mean, ratio)
    row = torch.stack((mean, std, *percentiles, (zero + negative) / count, last))
    return torch.where(finite == state.count, row, torch.nan)


def _low_frequency_ratio(tensor: torch.Tensor, activation: Activation) -> float | torch.Tensor:
    if activation.complex or tensor.numel() == 0:
        return math.nan
    if activation.layout.space != (2, 3) or activation.layout.unflattened:
        activation = Activation(tensor, Layout(sample=0, channel=1, space=(2, 3)))
    # The energy of the means belongs to the first coefficient, which is 0 in the grid.
    if activation.on_host:
        found = activation.host_energy
        grid = found.energies.reshape(-1, activation.sizes[-1] // 2 + 1)
        corner = grid[: max(1, grid.shape[0] // 8), : max(1, grid.shape[1] // 8)]
        whole = float(np.add.reduce(found.energies)) + found.dc
        share = (float(corner.sum()) + found.dc) / whole if whole else math.nan
        return share * (grid.size / corner.size)
    energy = activation.field_energy
    height, width = energy.grid.shape
    part = energy.grid[: max(1, height // 8), : max(1, width // 8)]
    return (part.sum() + energy.dc) / (energy.grid.sum() + energy.dc) * (energy.grid.numel() / part.numel())
