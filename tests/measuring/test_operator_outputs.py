"""Which tensors have the numbers of inputs and outputs: rms by channel, zero samples, effective rank."""

import pytest
import torch
from torch import nn

import fno_telemetry as ft
from fno_telemetry.report import as_document, as_record


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv1d(2, 3, 1)

    def forward(self, x):
        return {"field": self.layer(x), "complex": torch.complex(x, x.flip(1)), "mean": x.mean((1, 2))}


def test_inputs_and_outputs_have_the_rms_of_each_channel():
    x = torch.randn(4, 2, 9, generator=torch.Generator().manual_seed(0))
    x[:, 1] *= 100
    x[3] = 0
    record = ft.capture(TwoHeads(), list(x.split(3)))
    sizes = x.double().square().mean((0, 2)).sqrt().tolist()
    assert record.input.channel_rms == pytest.approx(sizes, rel=1e-6)
    assert record.input.stats["channel_rms_ratio"] == pytest.approx(sizes[1] / sizes[0], rel=1e-6)
    assert record.input.stats["zero_sample_fraction"] == 0.25
    field, magnitude, mean = record.outputs
    assert len(field.channel_rms) == 3 and field.stats["zero_sample_fraction"] == 0
    assert magnitude.values_of == "|z|"
    assert magnitude.channel_rms == pytest.approx([sum(size**2 for size in sizes) ** 0.5] * 2, rel=1e-6)
    # Of a vector with a number for each sample no axis is that of channels.
    assert mean.channel_rms is None and "channel" in mean.reasons["channel_rms_max"]
    layer = record.module("layer")
    assert layer.channel_rms is None
    ends = layer.stats["channel_rms_min"], layer.stats["channel_rms_max"]
    assert ends == pytest.approx((min(field.channel_rms), max(field.channel_rms)))
    assert as_record(as_document(record)) == record


def test_the_target_has_the_rms_of_each_channel_too():
    x = torch.randn(4, 2, 9, generator=torch.Generator().manual_seed(0))
    y = torch.stack([torch.ones(4, 9), torch.zeros(4, 9), torch.full((4, 9), -3.0)], 1)
    y[2] = 0
    record = ft.capture(nn.Conv1d(2, 3, 1), [(x, y)], inputs=0, target=1)
    assert record.target.channel_rms == pytest.approx((0.75**0.5, 0, 6.75**0.5))
    assert record.target.stats["zero_sample_fraction"] == 0.25
    assert "effective_rank" not in record.target.stats


def test_the_effective_rank_is_that_of_spectral_modules_blocks_and_outputs(small_network, images):
    record = ft.capture(small_network("fno"), images)
    having = {module.name for module in record.modules if "effective_rank" in module.stats}
    assert having == {m.name for m in record.modules if m.role in ("spectral", "block")} != set()
    for module in record.modules:
        if module.name in having:
            assert 1 <= module.stats["effective_rank"] <= module.shape[1]
    assert record.output.stats["effective_rank"] == pytest.approx(1)
    assert "effective_rank" not in record.input.stats
