"""Numbers of a report's samples by slow, obvious formulas, to see what separates sick from healthy."""

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

import fno_telemetry as ft
from benchmarks.natural_failures.networks.families import FAMILIES
from benchmarks.natural_failures.setup import Setup

Fields = npt.NDArray[Any]
BANDS = (0.0, 1 / 16, 1 / 8, 1 / 4, 1.0)
"""Edges of the bands over |f| in cycles per grid point; the last one takes the corners."""


def measure_numbers(
    setup: Setup,
    network: nn.Module,
    batches: list[tuple[torch.Tensor, torch.Tensor]],
    record: ft.CaptureRecord,
) -> dict[str, float | None]:
    """Return numbers by name; what is undefined is None."""
    network.eval()
    x, y, prediction = [], [], []
    with torch.no_grad():
        for one, wanted in batches:
            x.append(_fields(setup, one))
            y.append(_fields(setup, wanted))
            prediction.append(_fields(setup, setup.predict(network(one))))
    with np.errstate(all="ignore"):
        found = {
            **_of_input(np.concatenate(x)),
            **_of_target(np.concatenate(prediction), np.concatenate(y)),
            **_of_network(record),
        }
    return {name: float(value) if np.isfinite(value) else None for name, value in found.items()}


def _fields(setup: Setup, tensor: torch.Tensor) -> Fields:
    wide = tensor.to(torch.complex128 if tensor.is_complex() else torch.float64).numpy()
    return np.moveaxis(wide, -1, 1) if FAMILIES[setup.family].channels_last else wide


def _of_input(x: Fields) -> dict[str, float]:
    by_channel = np.sqrt(np.nanmean(x**2, axis=(0, *range(2, x.ndim))))
    zero = (np.abs(x) == 0).reshape(len(x), -1).all(axis=1)
    return {
        "input_rms": np.sqrt(np.nanmean(x**2)),
        "input_mean_over_std": np.abs(np.nanmean(x)) / np.nanstd(x),
        "input_channel_rms_ratio": by_channel.max() / by_channel.min(),
        "input_channel_mean_over_std": np.max(
            np.abs(np.nanmean(x, (0, *range(2, x.ndim)))) / np.nanstd(x, (0, *range(2, x.ndim)))
        ),
        "zero_sample_fraction": zero.mean(),
        "input_nan_fraction": np.isnan(x).mean(),
    }


def _of_target(prediction: Fields, y: Fields) -> dict[str, float]:
    axes = (0, *range(2, y.ndim))
    norm = np.linalg.norm
    spread = y - y.mean(axes, keepdims=True)
    ratios = _band_energy(prediction) / _band_energy(y)
    shares = _band_energy(y) / _band_energy(y).sum()
    errors = np.sqrt(_band_energy(prediction - y) / _band_energy(y))
    smaller = np.abs(prediction) < 1e-12
    found = {
        "relative_l2": norm(prediction - y) / norm(y),
        "error_to_mean_predictor": norm(prediction - y) / norm(spread),
        "output_to_target_rms": norm(prediction) / norm(y),
        "target_rms": np.sqrt(np.mean(np.abs(y) ** 2)),
        "target_mean_over_std": np.abs(y.mean()) / np.abs(spread).std(),
        "output_zero_fraction": smaller.mean(),
        "output_negative_fraction": (prediction.real < 0).mean(),
        "target_negative_fraction": (y.real < 0).mean(),
        "output_max_over_target_max": np.abs(prediction).max() / np.abs(y).max(),
        "correlation": np.abs(np.vdot(prediction - prediction.mean(axes, keepdims=True), spread))
        / norm(prediction - prediction.mean(axes, keepdims=True))
        / norm(spread),
        "output_variation": np.sqrt((np.abs(prediction - prediction.mean(0)) ** 2).mean())
        / np.sqrt((np.abs(prediction) ** 2).mean()),
    }
    for band in range(len(BANDS) - 1):
        found[f"spectrum_ratio_{band}"] = ratios[band] if shares[band] > 1e-4 else np.nan
        found[f"band_error_{band}"] = errors[band] if shares[band] > 1e-4 else np.nan
    return found


def _band_energy(fields: Fields) -> Fields:
    space = tuple(range(2, fields.ndim))
    energy = np.abs(np.fft.fftn(fields - fields.mean(space, keepdims=True), axes=space)) ** 2
    grids = np.meshgrid(*(np.fft.fftfreq(fields.shape[axis]) for axis in space), indexing="ij")
    frequency = np.sqrt(sum(grid**2 for grid in grids))
    total = energy.sum((0, 1))
    inside = [(frequency > low) & (frequency <= high) for low, high in pairwise(BANDS)]
    return np.array([total[band].sum() for band in inside])


def _of_network(record: ft.CaptureRecord) -> dict[str, float]:
    def worst(name: str, take: Any, roles: tuple[str, ...] = ()) -> float:
        values = [m.stats.get(name) for m in record.modules if not roles or m.role in roles]
        known = [value for value in values if value is not None]
        return take(known) if known else np.nan

    def of_blocks(name: str, take: Any) -> float:
        known = [v for b in record.blocks if (v := b.stats.get(name)) is not None]
        return take(known) if known else np.nan

    return {
        "module_rms_max": worst("rms", max),
        "module_rms_min": worst("rms", min),
        "dead_channels_max": worst("dead_channel_fraction", max),
        "activation_zero_max": worst("zero_fraction", max, ("activation",)),
        "activation_negative_min": worst("negative_fraction", min, ("activation",)),
        "sample_variation_min": worst("relative_sample_variation", min),
        "spectral_share_min": of_blocks("spectral_share", min),
        "spectral_share_max": of_blocks("spectral_share", max),
        "update_ratio_min": of_blocks("update_ratio", min),
        "gain_max": of_blocks("gain", max),
        "truncated_energy_max": worst("truncated_energy_fraction", max),
    }
