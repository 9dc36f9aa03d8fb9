"""The parameters in the record of a capture: names, digests, and norms of those without a module."""

import hashlib

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import fno_telemetry as ft
from fno_telemetry.diagnosis.example_records import set_step
from fno_telemetry.measuring.parameter_records import MOST_DIGESTED
from fno_telemetry.statistics.shares import spread_places


class Gated(nn.Module):
    """A layer, a gate and complex weights that belong to no layer, and a tied weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.again = nn.Conv2d(1, 4, 3, padding=1)
        self.again.weight = self.conv.weight
        self.gate = nn.Parameter(torch.full((4, 1, 1), 0.5))
        self.modes = nn.Parameter(torch.randn(70, 70, dtype=torch.cfloat))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) * self.gate + self.again(x) + self.modes.real.mean()


X = torch.rand(2, 1, 8, 8)


def digest_by_hand(parameter: torch.Tensor, dtype: str) -> str:
    values = parameter.detach().numpy().reshape(-1)
    if values.size > MOST_DIGESTED:
        values = values[spread_places(MOST_DIGESTED, values.size, torch.device("cpu")).numpy()]
    head = f"{dtype} {tuple(parameter.shape)}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(values).tobytes()).hexdigest()


def test_every_parameter_is_listed_once_with_its_digest() -> None:
    model = Gated()
    listed = {one.name: one for one in ft.capture(model, X).parameters}
    assert set(listed) == {"gate", "modes", "conv.weight", "conv.bias", "again.bias"}
    assert listed["conv.weight"].digest == digest_by_hand(model.conv.weight, "float32")
    assert listed["modes"].digest == digest_by_hand(model.modes, "complex64")
    assert "digest" in repr(listed["gate"])


def test_only_parameters_without_a_layer_have_a_norm_of_their_own() -> None:
    model = Gated()
    norms = {one.name: dict(one.stats) for one in ft.capture(model, X).parameters}
    assert norms["gate"]["weight_norm"] == pytest.approx(1.0)
    assert norms["modes"]["weight_norm"] == pytest.approx(np.linalg.norm(model.modes.detach().numpy()))
    assert norms["conv.weight"] == norms["again.bias"] == {}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_digest_is_that_of_the_bits(dtype: torch.dtype) -> None:
    layer = nn.Linear(3, 3).to(dtype)
    first = ft.capture(layer, torch.rand(2, 3, dtype=dtype)).parameters
    again = ft.capture(layer, torch.rand(2, 3, dtype=dtype)).parameters
    assert [one.digest for one in first] == [one.digest for one in again]
    with torch.no_grad():
        layer.weight[0, 0].add_(1)
    changed = ft.capture(layer, torch.rand(2, 3, dtype=dtype)).parameters
    assert [one.is_same_as(other) for one, other in zip(first, changed, strict=True)] == [False, True]


def test_parametrized_and_zero_dimensional_parameters() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = parametrizations.weight_norm(nn.Linear(3, 3))
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x) * self.scale

    listed = {one.name: one for one in ft.capture(Scaled(), torch.rand(2, 3)).parameters}
    assert listed["scale"].shape == () and listed["scale"].digest is not None
    assert {name for name in listed if name.startswith("layer")} and len(listed) == 4


def test_a_parameter_of_another_kind_has_no_digest() -> None:
    class Own(torch.Tensor):
        pass

    model = nn.Linear(3, 3)
    model.weight = nn.Parameter(torch.rand(3, 3).as_subclass(Own))
    listed = {one.name: one for one in ft.capture(model, torch.rand(2, 3)).parameters}
    assert listed["weight"].digest is None and listed["bias"].digest is not None
    assert listed["weight"].is_same_as(listed["weight"]) is None


@pytest.mark.parametrize("size", [3, 5000])
@pytest.mark.parametrize(
    "dtype",
    [torch.int8, torch.bool, torch.uint16, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64],
)
def test_parameters_of_any_type_are_digested(dtype: torch.dtype, size: int) -> None:
    model = nn.Linear(3, 3)
    stored = torch.ones(size).to(dtype)
    # As a quantized layer has them, or as the conjugate of another tensor.
    model.odd = nn.Parameter(stored.conj() if dtype.is_complex else stored, requires_grad=False)
    [odd] = [one for one in ft.capture(model, torch.rand(2, 3)).parameters if one.name == "odd"]
    assert odd.digest is not None
    has_norm = dtype.is_floating_point or dtype.is_complex
    assert dict(odd.stats) == ({"weight_norm": pytest.approx(size**0.5)} if has_norm else {})


def test_a_norm_that_is_not_finite_is_null_with_a_reason() -> None:
    model = Gated()
    with torch.no_grad():
        model.gate[0] = torch.inf
    gate = next(one for one in ft.capture(model, X).parameters if one.name == "gate")
    assert gate.stats["weight_norm"] is None
    assert gate.reasons["weight_norm"] == "the parameter is not finite"


def test_what_was_not_trained_is_named_from_two_reports() -> None:
    model = Gated()
    model.gate.requires_grad_(False)
    before = set_step(ft.capture(model, X), 0)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(X).square().mean().backward()
    optimizer.step()
    after = set_step(ft.capture(model, X), 1)
    [finding] = ft.diagnose(after, baseline=before, rules=["unchanged_parameters"])
    assert finding.severity == "warning" and "gate" in finding.message
    assert "1 of 5 parameters did not change: gate" in ft.compare(before, after).notes
    assert ft.diagnose(after, baseline=after, rules=["unchanged_parameters"]) == ()
    other = ft.capture(model, 100 * X)
    assert "no parameter changed" in ft.compare(after, other, allow_different_input=True).notes
    assert ft.compare(after, after).notes == ()


def test_a_checkpoint_that_is_that_of_the_untrained_network_is_an_error() -> None:
    record = ft.capture(Gated(), X)
    [finding] = ft.diagnose(
        set_step(record, 100), baseline=set_step(record, 0), rules=["unchanged_parameters"]
    )
    assert finding.severity == "error" and finding.message.startswith("has not been trained")
