"""Layers keep their names whatever quantization has put into them."""

import copy

import pytest
import torch
from torch import nn

import fno_telemetry as ft

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*quantiz:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*quantize:UserWarning"),
    pytest.mark.filterwarnings("ignore:Please use quant_min:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*reduce_range:UserWarning"),
]


@pytest.fixture
def layers():
    quantization = torch.ao.quantization
    layers = nn.Sequential(quantization.QuantStub(), nn.Linear(4, 4), nn.GELU(), quantization.DeQuantStub())
    layers.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    return layers


def recorded(model):
    """The names of what was measured, and of what was skipped."""
    record = ft.capture(model, torch.rand(3, 4))
    assert (record.not_fired, record.errors) == ((), ())
    return [m.name for m in record.modules], [entry["name"] for entry in record.skipped]


def test_dynamically_quantized_layers_are_measured(layers):
    layers = torch.ao.quantization.quantize_dynamic(layers.eval(), {nn.Linear}, dtype=torch.qint8)
    assert recorded(layers) == (["0", "1", "2", "3"], [])


@pytest.mark.parametrize("name", ["prepare", "prepare_qat"])
def test_observers_and_fake_quantizers_are_part_of_their_layer_and_learn_nothing(name, layers):
    expected = recorded(layers)
    prepare = getattr(torch.ao.quantization, name)
    prepared = prepare(copy.deepcopy(layers).train(name == "prepare_qat"))
    before = {key: value.clone() for key, value in prepared.state_dict().items()}
    assert len(before) > 2
    assert recorded(prepared) == expected
    after = prepared.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_outputs_that_are_stored_as_integers_are_skipped_by_name(layers):
    layers = torch.ao.quantization.prepare(layers.eval())
    layers(torch.rand(8, 4))
    quantized = torch.ao.quantization.convert(layers)
    assert recorded(quantized) == (["3"], ["0", "1", "2"])
