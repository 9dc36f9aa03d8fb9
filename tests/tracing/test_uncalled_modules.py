"""What a forward uses without a call did not fail to fire, and what it runs by a method is named."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import fno_telemetry as ft


class Weights(nn.Module):
    """Holds a tensor; its forward is never called."""

    def __init__(self):
        super().__init__()
        self.core = nn.Parameter(torch.eye(4))
        self.factors = nn.ParameterList([nn.Parameter(torch.ones(4))])

    def to_tensor(self):
        return self.core * self.factors[0]

    def forward(self, indices):
        return self.to_tensor()[indices]


class Backbone(nn.Module):
    """Is run by a method that calls a layer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def features(self, x):
        return self.layer(x)

    def forward(self, x):
        return self.features(x).mean()


class Padding(nn.Module):
    """Computes in its methods, and holds no tensor."""

    def pad(self, x):
        return functional.pad(x, (0, 1))

    def forward(self, x):
        return self.pad(x)


class Borrowing(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights, self.whole = Weights(), Weights()
        self.tied, self.table = nn.Linear(4, 4), nn.Embedding(4, 4)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
        self.statistics = nn.BatchNorm1d(4)
        self.gains = nn.ParameterDict({"a": nn.Parameter(torch.ones(4))})
        self.kinds = nn.ModuleDict({"used": nn.Linear(4, 4)})
        self.nothing = nn.Identity()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.backbone, self.padding = Backbone(), Padding()
        self.direct, self.unused, self.act = nn.Linear(4, 4), nn.Linear(4, 4), nn.GELU()

    def forward(self, x):
        x = x @ self.weights.to_tensor() + self.whole.core[:1]
        x = functional.linear(x, self.tied.weight) + self.table.weight.mean()
        x = functional.linear(x, self.normed.weight) - self.statistics.running_mean
        x = self.kinds["used"](x * self.gains["a"])
        x, _ = self.attention(x, x, x)
        x = self.direct.forward(self.backbone.features(x))
        return functional.gelu(self.padding.pad(x))


@pytest.mark.parametrize("loss", [None, lambda output, batch: output.mean()])
def test_only_what_did_not_run_is_not_fired(loss):
    record = ft.capture(Borrowing(), torch.rand(2, 3, 4), loss=loss)
    assert {entry["name"]: entry["reason"] for entry in record.not_fired} == dict.fromkeys(
        ["direct", "unused", "act"], "its forward was not called"
    )
    assert {entry["name"]: entry["reason"] for entry in record.skipped} == {
        "backbone": "run by its method features(), which no hook reports",
        "padding": "run by its method pad(), which no hook reports",
    }
    assert {"backbone.layer", "kinds.used", "attention"} <= {module.name for module in record.modules}
