"""What `torch.func` runs is recorded like any other forward, or named as skipped under vmap."""

import pytest
import torch
from torch import nn

import fno_telemetry as ft


@pytest.fixture
def network(small_network):
    return small_network("fno_vanilla").eval()


def measured(record):
    """What a record holds of modules and blocks, where nothing is missing."""
    assert (record.not_fired, record.skipped, record.errors) == ((), (), ())
    return record.modules, record.blocks, record.outputs


def test_weights_swapped_for_a_call_are_those_that_are_measured(images):
    model, twice = (nn.Sequential(nn.Conv2d(1, 2, 1), nn.GELU()) for _ in range(2))
    weights = {name: 2 * value.detach() for name, value in model.state_dict().items()}
    twice.load_state_dict(weights)
    record = ft.capture(
        model, images, forward=lambda x: torch.func.functional_call(model, weights, (x,), strict=True)
    )
    assert measured(record) == measured(ft.capture(twice, images))


TRANSFORMS = {
    "jvp": lambda model, x: torch.func.jvp(model, (x,), (torch.ones_like(x),)),
    "vjp": lambda model, x: torch.func.vjp(model, x),
    "grad": lambda model, x: torch.func.grad(lambda z: model(z).sum())(x),
    "jacrev": lambda model, x: torch.func.jacrev(lambda z: model(z).mean((0, 1, 2)))(x),
    "jacfwd": lambda model, x: torch.func.jacfwd(lambda z: model(x * z))(torch.ones(())),
}


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_forward_that_is_differentiated_functionally_is_recorded_like_any_other(name, network, images):
    expected = ft.capture(network, images)
    record = ft.capture(network, images, forward=lambda x: TRANSFORMS[name](network, x))
    assert measured(record) == measured(expected)


@pytest.mark.parametrize("differentiated", [False, True])
def test_a_model_run_inside_vmap_is_named_as_skipped_module_by_module(differentiated, network, images):
    def one(sample):
        return network(sample[None])[0]

    gradient = torch.func.grad(lambda sample: one(sample).sum())
    each = torch.func.vmap(gradient if differentiated else one)
    expected = ft.capture(network, images)
    record = ft.capture(network, images, forward=each)
    skipped = {entry["name"]: entry["reason"] for entry in record.skipped}
    assert {m.name for m in expected.modules} <= skipped.keys()
    assert all("capture the model without vmap" in reason for reason in skipped.values())
    assert (record.modules, record.output, record.errors) == ((), None, ())
    assert all(value is None for block in record.blocks for value in block.stats.values())
