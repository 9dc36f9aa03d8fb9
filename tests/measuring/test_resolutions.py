"""The same fields at another resolution: what is resampled, what is compared, and what is refused."""

from typing import Any

import pytest
import torch
from torch import nn

import fno_telemetry as ft
from support.resolution_networks import make_fixed, make_network, smooth_fields


def _both(network: nn.Module, x: torch.Tensor, factor: float = 2, **options: Any) -> tuple[Any, Any]:
    record = ft.capture(network, [x], **options)
    return record, ft.capture_resampled(network, [x], factor, record, **options)


@pytest.mark.parametrize("factor", [2, 1.5])
def test_a_network_of_spectral_and_pointwise_layers_keeps_to_the_fields(factor: float) -> None:
    record, other = _both(make_network(), smooth_fields(4, 16), factor)
    assert other.input.shape == (4, 1, int(16 * factor), int(16 * factor))
    assert other.output.stats["resolution_difference"] < 0.1
    assert other.module("1.spectral").stats["resolution_gain"] == pytest.approx(1, abs=0.02)
    assert other.resolution.of_digest == record.input_digest != other.input_digest
    assert other.resolution.differences[0] == pytest.approx(0, abs=0.02)
    assert [one for one in ft.diagnose(record, other) if one.rule == "resolution_dependent"] == []


def test_the_first_layer_that_depends_on_the_grid_is_named() -> None:
    record, other = _both(make_network(kernel=3), smooth_fields(4, 16))
    [finding] = ft.diagnose(record, other, rules=["resolution_dependent"])
    assert (finding.layer, finding.severity) == ("1.local", "warning")
    assert "1 x 1" in finding.advice


def test_a_transform_that_is_not_scaled_back_is_told_by_the_size() -> None:
    record, other = _both(make_network(inverse_norm="forward"), smooth_fields(4, 16))
    # The other order of the arguments is the same pair.
    [finding] = ft.diagnose(other, record, rules=["resolution_dependent"])
    assert finding.layer == "1.spectral"
    assert finding.evidence["resolution_gain"] == pytest.approx(4, rel=0.02)
    assert "norm" in finding.advice


def test_a_pair_without_its_first_record_is_judged_by_itself() -> None:
    _, other = _both(make_network(kernel=3), smooth_fields(4, 16))
    assert [one.layer for one in ft.diagnose(other, rules=["resolution_dependent"])] == ["1.local"]


def test_the_target_is_resampled_too_and_parts_that_are_no_fields_are_not() -> None:
    x = smooth_fields(4, 16)

    class Timed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = make_network()

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return self.inner(x) * t.reshape(-1, 1, 1, 1)

    network, times = Timed(), torch.ones(4)
    batches = [(x.numpy(), times, 2 * x.squeeze(1))]
    chosen: dict[str, Any] = {
        "inputs": [0, 1],
        "target": 2,
        "prediction": lambda z, batch: (z[:, 0], batch[2]),
    }
    record = ft.capture(network, batches, **chosen)
    other = ft.capture_resampled(network, batches, 2, record, **chosen)
    assert other.target.shape == (4, 32, 32)
    for name in ("relative_l2", "output_to_target_rms"):
        assert other.accuracy.stats[name] == pytest.approx(record.accuracy.stats[name], rel=0.1)


def test_what_has_no_other_resolution_is_refused_in_a_line() -> None:
    network, x = make_network(), smooth_fields(2, 16)
    record = ft.capture(network, [x])
    for factor, line in (
        (1, "`also_at` is 1: expected a positive number but 1, such as 2 or 0.5"),
        (float("nan"), "`also_at` is nan: expected a positive number but 1, such as 2 or 0.5"),
        (0.01, "`also_at` 0.01: of 16 x 16 points, fewer than two would be left"),
        (1.01, "`also_at` 1.01: 16 x 16 points stay as they are; choose a larger step"),
    ):
        with pytest.raises(ft.TelemetryError) as raised:
            ft.capture_resampled(network, [x], factor, record)
        assert str(raised.value) == line
    linear = nn.Linear(4, 4)
    flat = ft.capture(linear, [torch.randn(3, 4)])
    with pytest.raises(ft.InputError, match="no input has spatial axes"):
        ft.capture_resampled(linear, [torch.randn(3, 4)], 2, flat)


def test_a_model_that_takes_one_size_raises_its_own_error_and_is_as_before() -> None:
    network, x = make_fixed(), smooth_fields(2, 16)
    network.train()
    record = ft.capture(network, [x])
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        ft.capture_resampled(network, [x], 2, record)
    assert network.training and not any(module._forward_hooks for module in network.modules())


def test_rounded_sizes_are_named() -> None:
    _, other = _both(make_network(), smooth_fields(2, 15), 1.5)
    assert other.resolution.sizes == (23, 23)
    assert "22.5 x 22.5 points are rounded to 23 x 23" in other.warnings


def test_batches_of_several_sizes_are_refused_in_a_line() -> None:
    batches = [torch.randn(1, 1, 16, 16), torch.randn(1, 1, 20, 20)]
    network = torch.nn.Conv2d(1, 1, 3, padding=1)
    with pytest.raises(ft.InputError, match="does not have the 16 x 16 points of the first batch"):
        ft.capture_resampled(network, batches, 2, ft.capture(network, batches))
