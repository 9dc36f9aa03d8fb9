"""Every tensor of a batch is recorded, and what a module is given."""

import pytest
import torch
from torch import nn

import fno_telemetry as ft
from fno_telemetry.report import as_document, as_record


class OnGrid(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv1d(2, 3, 1)

    def forward(self, grid, field=None, labels=None):
        return self.layer(torch.cat([grid, field], 1))


GRID = torch.linspace(0, 1, 9).expand(4, 1, 9)
FIELD = torch.randn(4, 1, 9, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("batch", "items"),
    [((GRID, FIELD), ["0", "1"]), ({"grid": GRID, "field": FIELD, "labels": torch.ones(4).long()}, None)],
)
def test_all_tensors_of_a_batch_are_recorded(batch, items):
    record = ft.capture(OnGrid(), [batch])
    assert [entered.item for entered in record.inputs] == (items or ["grid", "field"])
    assert record.input == record.inputs[0]
    assert record.inputs[1].stats["rms"] == pytest.approx(float(FIELD.square().mean().sqrt()), rel=1e-6)
    assert as_record(as_document(record)) == record
    if items is None:
        assert [dict(entry) for entry in record.skipped] == [
            {"name": "input[labels]", "reason": "int64 values are not measured"}
        ]


def test_an_input_that_is_always_the_same_is_fine_beside_one_that_differs():
    def found(batch):
        return {f.rule for f in ft.diagnose(ft.capture(OnGrid(), [batch])) if f.severity != "note"}

    assert found((GRID, FIELD)) == set()
    assert found((0 * GRID, FIELD)) == set()
    assert "bad_input" in found((GRID, FIELD[:1].expand(4, 1, 9).clone()))


def test_the_variation_of_layers_is_relative_to_the_input_that_differs():
    stats = ft.capture(OnGrid(), [(GRID, FIELD)]).module("layer").stats
    alone = ft.capture(OnGrid(), [(FIELD, GRID)])
    assert stats["relative_sample_variation"] == pytest.approx(
        stats["sample_variation"] / alone.inputs[0].stats["sample_variation"]
    )


def test_a_module_is_recorded_with_the_size_of_its_input():
    model = nn.Sequential(nn.Conv1d(1, 3, 1), nn.ReLU(inplace=True), nn.Tanh())
    x = torch.cat([FIELD, torch.full_like(FIELD, torch.nan)])
    record = ft.capture(model, x)
    assert record.module("0").stats["input_rms"] == pytest.approx(
        float(FIELD.square().mean().sqrt()), rel=1e-6
    )
    assert record.module("1").stats["input_rms"] is None
    assert record.module("2").stats["input_rms"] == record.module("1").stats["rms"]


def test_sizes_whose_squares_overflow_are_known():
    x = FIELD.double() * 1e300
    model = nn.Sequential(nn.Identity(), nn.Identity())
    record = ft.capture(model, [x[:2], x[2:]])
    assert record.module("1").stats["input_rms"] == record.module("0").stats["rms"]
    assert record.module("1").stats["input_rms"] == pytest.approx(
        1e300 * float(FIELD.double().square().mean().sqrt()), rel=1e-12
    )
