"""Networks from names, factories and settings; random state and errors."""

import importlib
import sys

import pytest
import torch
from torch import nn

from fno_telemetry.errors import CheckpointError, ModelError, OptionError, PluginNotFound
from fno_telemetry.sources.checkpoints import read_checkpoint
from fno_telemetry.sources.factories import (
    build_from_factory,
    build_network,
    import_object,
    parse_settings,
)

ARCHITECTURES = {
    name: getattr(importlib.import_module(f"fno_telemetry.architectures.{name}"), name.upper())
    for name in ("fno", "hybrid", "stable_hybrid", "fno_vanilla")
}
SMALL = {
    "fno": {"fno_blocks": 2, "cnn_blocks": 1},
    "hybrid": {"n_blocks": 2},
    "stable_hybrid": {"n_blocks": 2},
    "fno_vanilla": {"n_blocks": 3},
}


def line(caught):
    text = str(caught.value)
    assert "\n" not in text
    return text


# ---- settings -------------------------------------------------------------------------------------------


def test_settings_are_toml_values_or_bare_words():
    given = [
        "C=1",
        "rate=1e-3",
        "flag=true",
        'name="a b"',
        "modes=[4, 4]",
        "options={a = 1}",
        "input_transform=log1p",
        "output_mode = amp_phase",
        "path=/data/my-file_1.pt",
        "factory=pkg.mod:make",
        "hex=0x10",
        "C=2",
    ]
    assert parse_settings(given) == {
        "C": 2,
        "rate": 1e-3,
        "flag": True,
        "name": "a b",
        "modes": [4, 4],
        "options": {"a": 1},
        "input_transform": "log1p",
        "output_mode": "amp_phase",
        "path": "/data/my-file_1.pt",
        "factory": "pkg.mod:make",
        "hex": 16,
    }
    assert parse_settings([]) == {}


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("C", "expected key=value"),
        ("=1", "expected key=value"),
        ("a-b=1", "expected key=value"),
        ("a.b=1", "expected key=value"),
        ("a=", "not a TOML value"),
        ("a=[1, 2", "not a TOML value"),
        ("a=two words", "not a TOML value"),
        ("a='x", "not a TOML value"),
        ("a=b=c", "not a TOML value"),
        ("a=.5", "not a TOML value"),
        ("a=012", "not a TOML value"),
        ("a=1\nb = 2", "not a TOML value"),
        ("a=True", "write true or false"),
        ("a=None", "leave the argument out"),
        ("a=" + "[" * 5000, "not a TOML value"),
    ],
)
def test_other_settings_are_refused_by_the_options_name(item, words):
    with pytest.raises(OptionError) as caught:
        parse_settings([item])
    assert words in line(caught)
    assert "`settings`" in line(caught)


# ---- pkg.mod:factory ------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder whose modules are importable only because it is the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    known = set(sys.modules)

    def write(name, text):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        importlib.invalidate_caches()

    yield write
    for name in set(sys.modules) - known:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=2):
        super().__init__()
        self.layer = nn.Linear(width, width)

class Zoo:
    @staticmethod
    def build(width=2):
        return Net(width)

ready = Net(3)
number = 4

def wrong():
    return lambda x: x

def dies():
    raise SystemExit("usage: train.py")

def fails(width):
    raise ValueError("first line\\nsecond line")

def __getattr__(name):
    if name == "lazy":
        raise RuntimeError("no GPU")
    raise AttributeError(name)
"""


@pytest.mark.parametrize("spec", ["my_nets_a:Net", "my_nets_a:Zoo.build"])
def test_classes_and_functions_build_networks(folder, spec):
    folder("my_nets_a.py", NETS)
    model = build_from_factory(spec, {"width": 5}, seed=0)
    assert isinstance(model, nn.Module)
    assert model.layer.weight.shape == (5, 5)


def test_a_finished_network_is_taken_as_it_is(folder):
    folder("my_nets_b.py", NETS)
    assert build_from_factory("my_nets_b:ready", {}, seed=0) is import_object("my_nets_b:ready")
    with pytest.raises(ModelError, match="takes no `settings`"):
        build_from_factory("my_nets_b:ready", {"width": 1}, seed=0)


def test_weights_come_from_the_seed_and_the_global_random_state_stays(folder):
    folder("my_nets_c.py", NETS)
    before = torch.get_rng_state()
    first, again, other = (build_from_factory("my_nets_c:Net", {}, seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.layer.weight, again.layer.weight)
    assert not torch.equal(first.layer.weight, other.layer.weight)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        assert torch.equal(import_object("my_nets_c:Net")().layer.weight, first.layer.weight)


def test_the_random_state_stays_when_a_factory_fails(folder):
    folder("my_nets_d.py", NETS)
    before = torch.get_rng_state()
    with pytest.raises(ModelError):
        build_from_factory("my_nets_d:fails", {"width": 1}, seed=5)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("my_nets", "expected package.module:attribute"),
        (":Net", "expected package.module:attribute"),
        ("my_nets:", "expected package.module:attribute"),
        ("models/fno.py:Net", "not a module's dotted name"),
        ("my_nets_e.py:Net", "not a module's dotted name"),
        ("no_such_package.inner:Net", "no module 'no_such_package'"),
        ("package_e.absent:Net", "no module 'package_e.absent'"),
        ("needy_e:Net", "needs another module: No module named 'not_installed_xyz'"),
        ("broken_e:Net", "importing broken_e failed with ValueError: two lines"),
        ("syntax_e:Net", "importing syntax_e failed with SyntaxError"),
        ("quits_e:Net", "importing quits_e failed with SystemExit: 3"),
        ("my_nets_e:Nett", "has no attribute 'Nett'. Did you mean Net?"),
        ("my_nets_e:Net.absent", "has no attribute 'Net.absent'"),
        ("my_nets_e:lazy", "getting 'lazy' failed with RuntimeError: no GPU"),
        ("my_nets_e:number", "is of type int; a network, its class or a function was expected"),
        ("my_nets_e:wrong", "returned a function; a torch.nn.Module was expected"),
        ("my_nets_e:dies", "failed with SystemExit: usage: train.py"),
        ("my_nets_e:fails", "called with () failed with TypeError"),
    ],
)
def test_every_way_a_factory_can_fail_is_told_in_one_line(folder, spec, words):
    folder("my_nets_e.py", NETS)
    folder("package_e/__init__.py", "")
    folder("needy_e.py", "import not_installed_xyz")
    folder("broken_e.py", "raise ValueError('two\\nlines')")
    folder("syntax_e.py", "def (")
    folder("quits_e.py", "import sys; sys.exit(3)")
    with pytest.raises(ModelError) as caught:
        build_from_factory(spec, {}, seed=0)
    assert words in line(caught)
    assert spec in line(caught)


def test_an_argument_that_a_factory_does_not_have_is_answered_with_those_it_has(folder):
    folder("my_nets_g.py", NETS + "\ndef loose(width=1, **others):\n    raise ValueError(str(others))\n")
    with pytest.raises(
        ModelError, match=r"'my_nets_g:fails' has no argument 'widht'. Did you mean width\? Known"
    ):
        build_from_factory("my_nets_g:fails", {"widht": 2}, seed=0)
    with pytest.raises(ModelError, match=r"failed with ValueError: \{'widht': 2\}"):
        build_from_factory("my_nets_g:loose", {"widht": 2}, seed=0)


def test_constructor_arguments_are_named_when_it_fails(folder):
    folder("my_nets_f.py", NETS)
    with pytest.raises(
        ModelError, match=r"called with \(width=2\) failed with ValueError: first line second"
    ):
        build_from_factory("my_nets_f:fails", {"width": 2}, seed=0)


# ---- built-in names -------------------------------------------------------------------------------------


def build(name=None, checkpoint=None, *, settings=None, channels=1, size=16, seed=0, **options):
    return build_network(
        ARCHITECTURES,
        name,
        checkpoint=checkpoint,
        settings=settings or {},
        channels=channels,
        size=size,
        seed=seed,
        **options,
    )


@pytest.fixture
def trained(tmp_path):
    """Save the weights of a small network and read them back."""

    def save(name, *, prefix="", content=None, drop=(), **arguments):
        torch.manual_seed(3)
        arguments = {"hidden_channels": 6, "modes": 3, "C": 1} | SMALL[name] | arguments
        model = ARCHITECTURES[name].build(**arguments)
        weights = {f"{prefix}{key}": value for key, value in model.state_dict().items() if key not in drop}
        torch.save({"state_dict": weights, **(content or {})}, tmp_path / "model.ckpt")
        return read_checkpoint(tmp_path / "model.ckpt"), model

    return save


def test_without_a_checkpoint_the_network_fits_the_data():
    network = build(channels=4, size=20)
    assert network.architecture == "fno"
    assert network.weights == "untrained, seed 0"
    assert (network.arguments["C"], network.arguments["modes"]) == (4, 5)
    assert network.match is None
    assert network.model.training
    with torch.no_grad():
        assert network.model(torch.zeros(2, 4, 20, 20)).shape == (2, 20, 20, 4, 2)


def test_untrained_weights_are_those_of_the_seed_and_the_random_state_stays():
    before = torch.get_rng_state()
    models = [build(seed=seed).model.lifter.conv1.weight for seed in (7, 7, 8)]
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(models[0], models[1])
    assert not torch.equal(models[0], models[2])


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize("prefix", ["", "model.generator.", "lightning_module.core."])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_checkpoint_says_which_network_and_how_large(trained, name, prefix, explicit):
    checkpoint, model = trained(name, prefix=prefix, C=2, output_mode="amp_phase")
    network = build(name if explicit else None, checkpoint, channels=2)
    assert (network.architecture, network.weights) == (name, "checkpoint")
    assert network.match.missing == ()
    x = torch.rand(1, 2, 16, 16)
    with torch.no_grad():
        for seen, expected in zip(network.model(x), model(x), strict=True):
            assert torch.equal(seen, expected)


def test_a_core_saved_twice_is_recognised_and_the_wrapper_left_over(trained, tmp_path):
    _, model = trained("fno")
    weights = {
        f"model.{core}.{key}": value
        for core in ("autoencoder", "generator")
        for key, value in model.state_dict().items()
    }
    torch.save({"state_dict": weights | {"model.forward_model.probe": torch.ones(2)}}, tmp_path / "x.ckpt")
    network = build(None, read_checkpoint(tmp_path / "x.ckpt"))
    assert network.match.unexpected == ("model.forward_model.probe",)


def test_weights_without_settings_warn_that_the_input_transform_is_assumed(trained):
    checkpoint, _ = trained("fno")
    (warning,) = build(None, checkpoint).warnings
    assert "does not say its input_transform: 'none' assumed" in warning
    assert '`settings={"input_transform": "sqrt"}`' in warning
    assert build(None, checkpoint, settings={"input_transform": "sqrt"}).warnings == ()


def test_hyper_parameters_give_the_input_transform(trained):
    settings = {"hyper_parameters": {"model_config": {"fno_input_transform": "log1p"}}}
    checkpoint, _ = trained("hybrid", content=settings)
    network = build(None, checkpoint)
    assert network.arguments["input_transform"] == "log1p"
    assert network.warnings == ()
    assert (
        build(None, checkpoint, settings={"input_transform": "sqrt"}).arguments["input_transform"] == "sqrt"
    )


def test_another_name_than_the_checkpoints_is_refused_with_the_right_one(trained):
    checkpoint, _ = trained("stable_hybrid")
    with pytest.raises(CheckpointError) as caught:
        build("hybrid", checkpoint)
    assert "these are weights of 'stable_hybrid', not of 'hybrid'" in line(caught)
    assert checkpoint.path in line(caught)


def test_weights_of_no_known_network_are_refused(tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "x.pt")
    checkpoint = read_checkpoint(tmp_path / "x.pt")
    with pytest.raises(CheckpointError) as caught:
        build(None, checkpoint)
    assert "no known architecture (fno, hybrid, stable_hybrid, fno_vanilla)" in line(caught)
    with pytest.raises(CheckpointError, match=r"nothing in it belongs to this network|missing|shape"):
        build("fno", checkpoint)


def test_data_with_other_channels_than_the_checkpoint_are_refused(trained):
    checkpoint, _ = trained("fno", C=4)
    with pytest.raises(CheckpointError) as caught:
        build(None, checkpoint, channels=1)
    assert "takes 4 channels (C=4, in_channels=1) and the data have 1" in line(caught)


def test_settings_that_contradict_the_data_are_refused():
    with pytest.raises(OptionError, match=r"`settings`: a network of 4 channels .*the data have 1"):
        build(settings={"C": 4})
    assert build(settings={"C": 1, "in_channels": 3}, channels=3).arguments["in_channels"] == 3


def test_settings_override_the_checkpoint(trained):
    checkpoint, _ = trained("fno")
    with pytest.raises(CheckpointError) as caught:
        build(None, checkpoint, settings={"hidden_channels": 8})
    assert "lifter.conv1.weight has shape (6, 1, 3, 3) in it and (8, 1, 3, 3)" in line(caught)


def test_missing_parameters_are_refused_or_allowed(trained):
    checkpoint, _ = trained("fno", drop=("output_proj.bias",))
    with pytest.raises(
        CheckpointError, match=r"1 of the network's .* output_proj\.bias\..*`allow_missing=True`"
    ):
        build(None, checkpoint)
    network = build(None, checkpoint, seed=4, allow_missing=True)
    assert network.match.missing == ("output_proj.bias",)
    assert "left at their initial values: output_proj.bias" in network.warnings[0]


def test_unknown_names_and_arguments_are_refused_with_the_known_ones():
    with pytest.raises(PluginNotFound, match=r"No architecture is called 'unet'\. Known: fno, hybrid"):
        build("unet")
    with pytest.raises(ModelError, match=r"no argument 'width'\. Known: in_channels"):
        build("fno", settings={"width": 3})


class Foreign:
    """An installed architecture that cannot read checkpoints, with an `fno` inside it."""

    name = "foreign"

    def defaults(self, channels, size):
        return {}

    def arguments(self, shapes, hyper_parameters):
        return None

    def build(self, **arguments):
        model = nn.Module()
        model.core = ARCHITECTURES["fno"].build(hidden_channels=6, modes=3, C=1, **SMALL["fno"])
        model.head = nn.Linear(2, 2)
        return model


def test_an_installed_architecture_is_tried_when_named(tmp_path):
    torch.save(Foreign().build().state_dict(), tmp_path / "x.pt")
    checkpoint = read_checkpoint(tmp_path / "x.pt")
    network = build_network(
        ARCHITECTURES | {"foreign": Foreign()},
        "foreign",
        checkpoint=checkpoint,
        settings={},
        channels=1,
        size=16,
        seed=0,
    )
    assert network.match.missing == network.match.unexpected == ()
    assert network.warnings == ()
