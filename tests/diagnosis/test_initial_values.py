"""Which weights are as layers start with, told from a report: starts of PyTorch, and trained weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from neuralop.models import FNO
from torch import nn

import fno_telemetry as ft
from fno_telemetry.diagnosis.initial_values import is_as_initialised
from fno_telemetry.measuring.parameter_records import MOST_DIGESTED, list_parameters
from fno_telemetry.statistics.shares import spread_places

RULES = ["as_initialised", "weights_too_large", "weights_too_small"]
X = torch.randn(16, 3, 16, generator=torch.Generator().manual_seed(0))
Y = torch.randn(16, 1, 16, generator=torch.Generator().manual_seed(1))


def make_network(seed=0):
    torch.manual_seed(seed)
    layers = [nn.Conv1d(3, 32, 3, padding=1), nn.GELU(), nn.Conv1d(32, 32, 3, padding=1), nn.GELU()]
    return nn.Sequential(*layers, nn.Conv1d(32, 32, 1), nn.GELU(), nn.Conv1d(32, 1, 1))


def train(network, steps=20, rate=1e-2, decay=0.0):
    trained = [one for one in network.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, rate, weight_decay=decay)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.mse_loss(network(X), Y).backward()
        optimizer.step()


def diagnose(network, **told):
    return ft.diagnose(ft.capture(network, X, **told), rules=RULES)


def list_starts(module):
    return {one.name: is_as_initialised(one) for one in list_parameters(module, ())}


@pytest.mark.parametrize(
    "start",
    [
        lambda weight: None,
        nn.init.kaiming_uniform_,
        lambda weight: nn.init.kaiming_uniform_(weight, nonlinearity="linear"),
        nn.init.xavier_uniform_,
    ],
    ids=["of the layer", "Kaiming", "LeCun", "Xavier"],
)
def test_every_usual_uniform_start_is_recognised(start):
    for seed in range(20):
        torch.manual_seed(seed)
        for layer in (nn.Linear(16, 24), nn.Conv2d(8, 24, 3, groups=2), nn.ConvTranspose1d(24, 32, 2)):
            start(layer.weight.data)
            assert list_starts(layer)["weight"], (layer, seed)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5])
def test_weights_that_moved_are_not_as_initialised(share):
    wrong = 0
    for seed in range(50):
        torch.manual_seed(seed)
        layer = nn.Linear(32, 32)
        with torch.no_grad():
            layer.weight += share * layer.weight.abs().max() * torch.randn_like(layer.weight).sign()
        wrong += bool(list_starts(layer)["weight"])
    assert wrong <= 1  # of 1024 values that move by 1 %, none crosses the bound in one case of a thousand


def test_parts_of_complex_weights_from_zero_on_and_scales_of_one_value():
    torch.manual_seed(0)
    module = nn.Module()
    module.modes = nn.Parameter(0.01 * torch.rand(8, 8, 4, 4, dtype=torch.cfloat))
    module.scale = nn.Parameter(torch.full((1, 16, 1, 1), 1e-3))
    module.box = nn.Parameter(torch.full((1, 1, 3, 3), 1 / 9))
    module.normal = nn.Parameter(torch.randn(32, 32))
    module.zero = nn.Parameter(torch.zeros(64))
    starts = list_starts(module)
    assert starts["modes"] and starts["scale"]
    assert not starts["box"] and not starts["normal"] and not starts["zero"]
    with torch.no_grad():
        module.modes -= 1e-4
        module.scale[0, 3] += 1e-6
    assert not list_starts(module)["modes"] and not list_starts(module)["scale"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64])
@pytest.mark.parametrize("size", [7, 70])
def test_the_sample_of_a_parameter_equals_numpy(dtype, size):
    module = nn.Module()
    module.weight = nn.Parameter(torch.randn(size, size).to(dtype))
    [listed] = list_parameters(module, ())
    rows = module.weight.detach().reshape(-1, 1)
    if len(rows) > MOST_DIGESTED:
        rows = rows[spread_places(MOST_DIGESTED, len(rows), rows.device)]
    values = (torch.view_as_real(rows) if dtype.is_complex else rows).double().numpy()
    assert listed.sample.number == values.size
    assert (listed.sample.min, listed.sample.max) == (values.min(), values.max())
    assert listed.sample.rms == pytest.approx(np.sqrt(np.mean(values**2)), rel=1e-12)


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_values_that_are_not_finite_have_no_sample(value):
    layer = nn.Linear(3, 3)
    with torch.no_grad():
        layer.weight[0, 0] = value
    listed = {one.name: one.sample for one in list_parameters(layer, ())}
    assert listed["weight"] is None and listed["bias"] is not None


def test_a_trained_network_is_silent_and_an_untrained_one_a_note():
    network = make_network()
    [finding] = diagnose(network)
    assert finding.severity == "note" and finding.rule == "as_initialised"
    [finding] = diagnose(network, step=1000)
    assert finding.severity == "error"
    assert diagnose(network, step=0) == ()
    train(network)
    assert diagnose(network) == () == diagnose(network, step=1000)


@pytest.mark.parametrize("seed", range(3))
def test_a_layer_that_the_optimizer_does_not_have_is_named(seed):
    network = make_network(seed)
    network[2].requires_grad_(False)
    train(network, decay=0.1)
    [finding] = diagnose(network)
    assert (finding.rule, finding.severity, finding.layer) == ("as_initialised", "warning", "2")
    assert "2.weight" in finding.message and "optimizer" in finding.advice


def test_layers_that_were_not_loaded_are_named():
    trained, network = make_network(), make_network(7)
    train(trained)
    kept = {name: value for name, value in trained.state_dict().items() if not name.startswith(("2.", "4."))}
    network.load_state_dict(kept, strict=False)
    [finding] = diagnose(network)
    assert finding.rule == "as_initialised" and "2.weight" in finding.message
    assert "strict=True" in finding.advice


def test_weights_after_a_rate_that_was_far_too_high_and_after_too_much_decay():
    network = make_network()
    train(network, steps=5, rate=1.0)
    assert [finding.rule for finding in diagnose(network)] == ["weights_too_large"]
    network = make_network()
    train(network, steps=40, rate=1e-3, decay=200.0)
    assert [finding.rule for finding in diagnose(network)] == ["weights_too_small"]


def test_hostile_parameters_are_judged_without_an_error():
    module = nn.Module()
    module.none = nn.Parameter(torch.empty(0, 3))
    module.zero = nn.Parameter(torch.zeros(64, 64, dtype=torch.cfloat))
    module.tiny = nn.Parameter(torch.full((64, 64), 1e-45))
    module.whole = nn.Parameter(torch.ones(64, 64, dtype=torch.int64), requires_grad=False)
    module.one = nn.Parameter(torch.tensor(1.0))
    assert not any(list_starts(module).values())


@pytest.mark.parametrize(
    "make", [lambda: FNO((4, 4), 2, 1, 16), lambda: nn.TransformerEncoderLayer(32, 4, 64)]
)
def test_a_network_that_starts_in_several_ways_and_was_not_trained_has_notes_only(make):
    torch.manual_seed(0)
    network = make()
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
    x = torch.randn(2, 2, 16, 16) if isinstance(network, FNO) else torch.randn(2, 8, 32)
    found = ft.diagnose(ft.capture(network, x), rules=RULES)
    assert {finding.severity for finding in found} <= {"note"}


def test_a_network_whose_small_layers_were_trained_is_said_to_be_trained_in_part():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv1d(3, 32, 1), nn.GELU(), nn.Conv1d(32, 32, 1), nn.GELU(), nn.Conv1d(32, 1, 1)
    )
    network[2].requires_grad_(False)
    train(network, steps=40, rate=5e-2)
    [finding] = diagnose(network, step=40)
    assert (finding.severity, finding.layer) == ("warning", "2") and "hardly" in finding.message


@pytest.mark.parametrize("shape", [(0, 0), (64, 0), (10**29,) * 40])
def test_a_report_with_shapes_that_cannot_be_is_judged_without_an_error(shape):
    record = ft.capture(make_network(), X)
    hostile = [replace(one, shape=shape) for one in record.parameters]
    assert ft.diagnose(replace(record, parameters=tuple(hostile)), rules=RULES) == ()
