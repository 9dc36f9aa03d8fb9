"""Arguments: from the data, from a checkpoint's shapes, and refused when impossible."""

import importlib

import pytest
import torch

from fno_telemetry.errors import ModelError

ARCHITECTURES = [
    getattr(importlib.import_module(f"fno_telemetry.architectures.{name}"), name.upper())
    for name in ("fno", "hybrid", "stable_hybrid", "fno_vanilla")
]
each = pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda item: item.name)


def depth(architecture, blocks=2):
    return {"fno_blocks": blocks, "cnn_blocks": 1} if architecture.name == "fno" else {"n_blocks": blocks}


def shapes_of(architecture, **arguments):
    with torch.device("meta"):
        state = architecture.build(**arguments).state_dict()
    return {name: tuple(value.shape) for name, value in state.items()}


@each
def test_defaults_follow_the_data(architecture):
    defaults = architecture.defaults(channels=4, size=64)
    assert tuple(defaults[key] for key in ("C", "modes", "hidden_channels", "in_channels")) == (4, 12, 32, 1)
    assert architecture.defaults(channels=1, size=32)["modes"] == 8
    assert architecture.defaults(channels=1, size=3)["modes"] == 1
    with torch.device("meta"):
        architecture.build(**defaults)


@each
@pytest.mark.parametrize("output_mode", ["real_imag", "amp_phase"])
@pytest.mark.parametrize("patches", [1, 3, 4])
@pytest.mark.parametrize("in_channels", [1, 2])
def test_arguments_are_read_back_from_shapes(architecture, output_mode, patches, in_channels):
    given = {
        "in_channels": in_channels,
        "hidden_channels": 6,
        **depth(architecture, 3),
        "modes": 5,
        "C": patches,
        "output_mode": output_mode,
    }
    assert given == architecture.arguments(shapes_of(architecture, **given), {})


@each
def test_only_the_architecture_itself_recognises_its_weights(architecture):
    shapes = shapes_of(architecture, hidden_channels=4, modes=2, C=1, **depth(architecture))
    found = [other.name for other in ARCHITECTURES if other.arguments(shapes, {}) is not None]
    assert [architecture.name] == found


@each
def test_weights_of_a_similar_network_are_not_recognised(architecture):
    shapes = shapes_of(architecture, hidden_channels=4, modes=2, C=1, **depth(architecture))
    first = next(name for name in shapes if name.endswith("spectral.weights"))
    gated = shapes | {first.replace("spectral.weights", "gate"): (4,)}
    assert architecture.arguments(gated, {}) is None
    assert architecture.arguments(shapes | {first: (4, 4, 2)}, {}) is None
    assert architecture.arguments(shapes | {first: (4, 4, 2, 3)}, {}) is None
    assert architecture.arguments(shapes | {"lifter.conv1.weight": ()}, {}) is None
    assert architecture.arguments({}, {}) is None


@each
def test_incomplete_or_accompanied_weights_are_still_recognised(architecture):
    shapes = shapes_of(architecture, hidden_channels=4, modes=2, C=1, **depth(architecture))
    whole = architecture.arguments(shapes, {})
    assert whole == architecture.arguments(shapes | {"forward_model.scale": (1,)}, {})
    without = {name: shape for name, shape in shapes.items() if not name.startswith("output_proj")}
    assert whole == architecture.arguments(without, {})


@each
@pytest.mark.parametrize(
    "settings",
    [
        {"model_config": {"fno_input_transform": "log1p"}},
        {"config": {"deeper": {"model_config": {"fno_input_transform": "log1p"}}}},
        {"fno_input_transform": "log1p"},
        {"input_transform": "log1p", "data_config": {"N": 64}},
    ],
)
def test_input_transform_comes_from_hyper_parameters(architecture, settings):
    shapes = shapes_of(architecture, hidden_channels=4, modes=2, C=1, **depth(architecture))
    assert architecture.arguments(shapes, settings)["input_transform"] == "log1p"
    assert "input_transform" not in architecture.arguments(shapes, {"model_config": {"N": 1}})


def test_settings_that_hold_themselves_end_the_search():
    settings = {"a": 1}
    settings["self"] = settings
    shapes = shapes_of(ARCHITECTURES[0], hidden_channels=4, modes=2, C=1)
    assert "input_transform" not in ARCHITECTURES[0].arguments(shapes, settings)


@each
def test_recognition_draws_no_random_numbers(architecture):
    shapes = shapes_of(architecture, hidden_channels=4, modes=2, C=1, **depth(architecture))
    before = torch.get_rng_state()
    architecture.arguments(shapes, {})
    assert torch.equal(before, torch.get_rng_state())


@each
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"width": 8}, "no argument 'width'. Known: in_channels"),
        ({"hidden_channels": "8"}, "hidden_channels='8': a whole number of at least 1"),
        ({"hidden_channels": 0}, "hidden_channels=0"),
        ({"modes": True}, "modes=True"),
        ({"modes": 2.0}, "modes=2.0"),
        ({"C": -1}, "C=-1"),
        ({"input_transform": "log"}, "none or sqrt or log1p or instancenorm"),
        ({"output_mode": ["amp_phase"]}, "real_imag or amp_phase"),
        ({"hidden_channels": 2**40}, "cannot be built"),
    ],
)
def test_impossible_arguments_are_refused_in_one_line(architecture, arguments, words):
    with pytest.raises(ModelError) as caught:
        architecture.build(**arguments)
    assert words in str(caught.value)
    assert repr(architecture.name) in str(caught.value)
    assert "\n" not in str(caught.value)
