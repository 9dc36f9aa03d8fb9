"""Checkpoints: every container and prefix loads, nothing in a file runs, every bad file has an answer."""

import argparse
import collections
import datetime
import functools
import hashlib
import os
import pathlib
import pickle
import re
import sys
import types
import zipfile

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from fno_telemetry.errors import CheckpointError
from fno_telemetry.sources.checkpoints import read_checkpoint
from fno_telemetry.sources.subtrees import find_weights, subtrees
from fno_telemetry.sources.weight_loading import load_weights


class Small(nn.Module):
    """A stand-in for a network: two named layers, a complex parameter, a norm with buffers."""

    def __init__(self, width=3):
        super().__init__()
        self.lifter = nn.Conv2d(1, width, 1)
        self.norm = nn.BatchNorm2d(width)
        self.spectral = nn.Parameter(torch.randn(width, 2, dtype=torch.complex64))


def small(seed, width=3):
    torch.manual_seed(seed)
    network = Small(width)
    network.norm.running_mean.uniform_()
    return network


def state(seed=1, prefix="", width=3):
    return {f"{prefix}{name}": value for name, value in small(seed, width).state_dict().items()}


@pytest.fixture
def saved(tmp_path):
    def save(content, name="model.pt", **options):
        path = tmp_path / name
        torch.save(content, path, **options)
        return path

    return save


def same(model, seed=1):
    expected = small(seed).state_dict()
    own = {name.removeprefix("module."): value for name, value in model.state_dict().items()}
    return all(torch.equal(own[name], value) for name, value in expected.items())


def refusal(path, **options):
    """The one line in which a file is refused."""
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


# ---- containers and prefixes ----------------------------------------------------------------------------

CONTAINERS = {
    "bare": lambda weights: weights,
    "ordered": lambda weights: collections.OrderedDict(weights),
    "state_dict": lambda weights: {"state_dict": weights, "loss": torch.tensor(0.5), "epoch": 2},
    "model": lambda weights: {"model": weights, "optimizer": {"state": {0: {"m": torch.ones(2)}}}},
    "model_state_dict": lambda weights: {"epoch": 1, "model_state_dict": weights},
    "nested": lambda weights: {"model": {"state_dict": weights}, "args": argparse.Namespace(lr=1.0)},
    "other key": lambda weights: {"network": weights, "optimizer_state_dict": {"exp_avg": torch.ones(2)}},
    "beside settings": lambda weights: {"model": {"width": 3}, "state_dict": weights},
}
PREFIXES = [
    "",
    "module.",
    "_orig_mod.",
    "model.",
    "generator.",
    "net.",
    "model.generator.",
    "module.model.net.",
    "_orig_mod.module.generator.",
    "model._orig_mod.generator._fsdp_wrapped_module.",
    "fno.",
    "trainer.student.",
]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("container", CONTAINERS)
def test_weights_load_from_every_container_and_prefix(saved, container, prefix):
    path = saved(CONTAINERS[container](state(prefix=prefix)))
    model = small(2)
    match = load_weights(model, read_checkpoint(path))
    assert same(model)
    assert match.matched == tuple(model.state_dict())
    assert (match.missing, match.unexpected, match.warnings) == ((), (), ())


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, lambda model: nn.Sequential(collections.OrderedDict(net=model))]
)
def test_weights_load_into_a_wrapped_network(saved, wrap):
    inner = small(2)
    load_weights(wrap(inner), read_checkpoint(saved({"state_dict": state(prefix="model.generator.")})))
    assert same(inner)


def test_wrapper_names_inside_a_path_count_for_nothing(saved):
    weights = {
        name.replace("norm.", "norm._checkpoint_wrapped_module."): value for name, value in state().items()
    }
    model = small(2)
    load_weights(model, read_checkpoint(saved(weights)))
    assert same(model)


def test_old_files_from_before_zip_archives_load(saved):
    path = saved(state(), _use_new_zipfile_serialization=False)
    model = small(2)
    load_weights(model, read_checkpoint(path))
    assert same(model)


def test_a_core_saved_twice_is_loaded_once_and_the_wrapper_is_left_over(saved):
    core = state()
    weights = {f"model.autoencoder.{name}": value for name, value in core.items()}
    weights |= {f"model.generator.{name}": value for name, value in core.items()}
    weights |= {"model.forward_model.scale": torch.ones(1)}
    model = small(2)
    match = load_weights(model, read_checkpoint(saved({"state_dict": weights})))
    assert same(model)
    assert (match.unexpected, match.warnings) == (("model.forward_model.scale",), ())


def test_of_two_different_cores_the_generator_is_loaded_with_a_warning(saved):
    weights = state(2, "model.autoencoder.") | state(1, "model.generator.")
    model = small(3)
    match = load_weights(model, read_checkpoint(saved(weights)))
    assert same(model)
    assert match.warnings == (
        "'model.generator' and 'model.autoencoder' hold different weights for this network; "
        "those of 'model.generator' were loaded.",
    )
    assert len(match.unexpected) == len(state())


def test_equal_cores_are_equal_even_where_they_hold_nan(saved):
    core = state()
    core["lifter.weight"] = torch.full((3, 1, 1, 1), torch.nan)
    weights = {
        f"{prefix}.{name}": value for prefix in ("generator", "autoencoder") for name, value in core.items()
    }
    assert load_weights(small(2), read_checkpoint(saved(weights))).warnings == ()


def test_equally_likely_parts_with_different_weights_are_refused(saved):
    checkpoint = read_checkpoint(saved(state(1, "student.") | state(2, "teacher.")))
    with pytest.raises(CheckpointError, match=r"'student' and 'teacher' fit this network equally well"):
        load_weights(small(3), checkpoint)


def test_the_part_whose_shapes_fit_is_chosen(saved):
    checkpoint = read_checkpoint(saved(state(2, "generator.", width=5) | state(1, "student.")))
    model = small(3)
    match = load_weights(model, checkpoint)
    assert same(model)
    assert "without a place in the network: generator.spectral" in match.warnings[0]


def test_metadata_of_neuraloperator_is_dropped_and_its_names_are_not_imported(saved, monkeypatch):
    module = types.ModuleType("neuralop.layers.spectral_convolution")
    module.SpectralConv = type("SpectralConv", (), {"__module__": module.__name__})
    for name in ("neuralop", "neuralop.layers", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    weights = collections.OrderedDict(state())
    weights["_metadata"] = {
        "non_linearity": functional.gelu,
        "conv_module": module.SpectralConv,
        "scale": torch.ones(2),
        "norm": nn.GELU(),
    }
    weights._metadata = {"": {"version": 1}}
    path = saved(weights)
    for name in ("neuralop", "neuralop.layers", module.__name__):
        monkeypatch.delitem(sys.modules, name)
    checkpoint = read_checkpoint(path)
    assert set(checkpoint.tensors) == set(state())
    assert "neuralop" not in sys.modules


# ---- what a checkpoint says of itself -------------------------------------------------------------------


def test_path_digest_and_settings_are_recorded(saved):
    settings = {"model_config": {"architecture": "fno", "fno_modes": 12}, "data_config": {"N": 64, "C": 1}}
    path = saved({"state_dict": state(), "global_step": 7, "hyper_parameters": settings}, "a b é.ckpt")
    checkpoint = read_checkpoint(path)
    assert checkpoint.path == str(path)
    assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert dict(checkpoint.hyper_parameters) == settings


def test_harmless_settings_need_no_trust(saved, monkeypatch):
    dotted = "lightning.fabric.utilities.data"
    module = types.ModuleType(dotted)
    module.AttributeDict = type("AttributeDict", (dict,), {"__module__": dotted})
    packages = ["lightning", "lightning.fabric", "lightning.fabric.utilities", dotted]
    for name in packages:
        monkeypatch.setitem(sys.modules, name, module)
    counts = collections.defaultdict(int)
    counts["a"] = 1
    settings = module.AttributeDict(
        namespace=argparse.Namespace(width=8, inner=argparse.Namespace(modes=4)),
        simple=types.SimpleNamespace(x=1),
        folder=pathlib.PurePosixPath("/data/x"),
        windows=pathlib.PureWindowsPath("C:/data"),
        rate=np.float64(0.25),
        big=np.dtype(">i4").type(3),
        flag=np.bool_(True),
        complex=np.complex64(1j),
        array=np.arange(3.0),
        kind=np.dtype("float32"),
        counts=counts,
        names=frozenset(["a"]),
        empty=b"",
        when=datetime.datetime(2024, 1, 1),
        activation=functional.relu,
        another=functional.gelu,
        layer=nn.SiLU,
        part=functools.partial(functional.leaky_relu, negative_slope=0.1),
    )
    path = saved(
        {"state_dict": state(), "hyper_parameters": settings, "rng": np.random.default_rng(0).bytes(3)}
    )
    for name in packages:
        monkeypatch.delitem(sys.modules, name)
    allowed = set(torch.serialization.get_safe_globals())
    found = read_checkpoint(path).hyper_parameters
    assert found["namespace"] == {"width": 8, "inner": {"modes": 4}}
    assert found["simple"] == {"x": 1}
    assert (found["folder"], found["windows"]) == ("/data/x", "C:\\data")
    assert (found["rate"], found["big"], found["flag"], found["complex"]) == (0.25, 3, True, 1j)
    assert (found["counts"], found["names"]) == ({"a": 1}, {"a"})
    assert set(torch.serialization.get_safe_globals()) == allowed


@pytest.mark.parametrize(
    ("entries", "name", "expected"),
    [
        ({"global_step": 500, "epoch": 3}, "step=1000.ckpt", (500, "step")),
        ({"global_step": 0}, "x.ckpt", (0, "step")),
        ({"global_step": torch.tensor(12)}, "x.ckpt", (12, "step")),
        ({"global_step": np.int64(12)}, "x.ckpt", (12, "step")),
        ({"global_step": 12.0}, "x.ckpt", (12, "step")),
        ({"global_step": True}, "x.ckpt", (None, None)),
        ({"global_step": "many"}, "step5.ckpt", (5, "step")),
        ({"global_step": -1}, "x.ckpt", (None, None)),
        ({"global_step": float("nan")}, "x.ckpt", (None, None)),
        ({"epoch": 3}, "epoch=3-step=1000.ckpt", (1000, "step")),
        ({}, "epoch=3-step=1000-v1.ckpt", (1000, "step")),
        ({}, "model_step_1000.pt", (1000, "step")),
        ({}, "STEP1000.pt", (1000, "step")),
        ({}, "run.step-0020.pt", (20, "step")),
        ({}, "run.step1000", (1000, "step")),
        ({}, "global_step200.pt", (200, "step")),
        ({}, "footstep12.pt", (None, None)),
        ({}, "step12k.pt", (None, None)),
        ({}, "steps12.pt", (None, None)),
        ({"epoch": 3}, "best.ckpt", (3, "epoch")),
        ({"epoch": 4}, "epoch=3.ckpt", (4, "epoch")),
        ({}, "epoch=3.ckpt", (3, "epoch")),
        ({}, "net_epoch_07.pth", (7, "epoch")),
        ({}, "best.pt", (None, None)),
    ],
)
def test_the_step_is_the_files_own_then_its_names_then_the_epoch(saved, entries, name, expected):
    checkpoint = read_checkpoint(saved({"state_dict": state(), **entries}, name))
    assert (checkpoint.step, checkpoint.step_kind) == expected


def test_the_name_of_the_folder_is_no_step(tmp_path, saved):
    (tmp_path / "step_5").mkdir()
    assert read_checkpoint(saved(state(), "step_5/model.pt")).step is None


# ---- hostile files --------------------------------------------------------------------------------------


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def touch(path):
    pathlib.Path(path).touch()


@pytest.mark.parametrize("archive", [True, False], ids=["zip", "old"])
@pytest.mark.parametrize("place", ["top", "weights", "settings"])
@pytest.mark.parametrize(
    ("function", "argument", "named"),
    [
        (os.system, "touch {}", "posix.system"),
        (eval, "open({!r}, 'w')", "eval"),
        (pathlib.Path.touch, None, "getattr"),
        (os.mkdir, "{}", "posix.mkdir"),
        (open, "{}", "open"),
    ],
)
def test_a_hostile_pickle_leaves_no_trace_and_only_weights_in_it_need_trust(
    saved, tmp_path, function, argument, named, place, archive
):
    trace = tmp_path / "trace"
    bomb = Calls(function, argument.format(str(trace)) if argument else trace)
    content = {
        "top": bomb,
        "weights": state() | {"x": bomb},
        "settings": {"state_dict": state(), "hyper_parameters": {"x": bomb}},
    }[place]
    path = saved(content, _use_new_zipfile_serialization=archive)
    before = set(tmp_path.iterdir())
    if place == "top":
        text = refusal(path)
        assert named in text
        assert "`trust=True`" in text
    else:
        assert set(read_checkpoint(path).tensors) == set(state())
    assert set(tmp_path.iterdir()) == before


def test_a_plain_pickle_is_refused_and_leaves_no_trace(tmp_path):
    path, trace = tmp_path / "plain.pkl", tmp_path / "trace"
    for protocol in (2, 4):
        path.write_bytes(pickle.dumps(Calls(os.system, f"touch {trace}"), protocol))
        refusal(path)
        assert not trace.exists()


@pytest.mark.parametrize(
    "pickled",
    [
        # A dtype whose state denies that it holds objects, and an array of addresses behind it.
        b"\x80\x02cnumpy\ndtype\nX\x01\x00\x00\x00O\x85R(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb.",
        b"\x80\x02cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nX\x01\x00\x00\x00O\x85RX\x04\x00\x00\x00abcd\x86R.",
        b"\x80\x02cneuralop\nos.system\nX\x04\x00\x00\x00true\x85R.",
        b"\x80\x02cnumpy.testing\nrundocs\nX\x04\x00\x00\x00x.py\x85R.",
        b"\x80\x02cfunctools\npartial\ncnumpy.testing\nrundocs\n\x85R}X\x01\x00\x00\x00aK\x01sb.",
    ],
)
def test_allowed_names_are_answered_by_things_that_do_nothing(tmp_path, pickled):
    path = tmp_path / "model.pt"
    torch.save({}, path)
    with zipfile.ZipFile(path) as source:
        others = {name: source.read(name) for name in source.namelist() if not name.endswith("data.pkl")}
        main = next(name for name in source.namelist() if name.endswith("data.pkl"))
    with zipfile.ZipFile(path, "w") as target:
        target.writestr(main, pickled)
        for name, content in others.items():
            target.writestr(name, content)
    assert re.search("not a state dict|which may run any code", refusal(path))


def test_trust_lets_a_whole_pickled_network_load(tmp_path, monkeypatch):
    (tmp_path / "my_nets.py").write_text("import torch\nclass Net(torch.nn.Linear):\n    pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    import my_nets

    torch.save({"model": my_nets.Net(2, 2), "epoch": 4}, "whole.pt")
    del sys.modules["my_nets"]
    sys.path.remove(str(tmp_path))
    assert "my_nets.Net" in refusal("whole.pt")
    checkpoint = read_checkpoint("whole.pt", trust=True)
    assert set(checkpoint.tensors) == {"weight", "bias"}
    assert (checkpoint.step, checkpoint.step_kind) == (4, "epoch")
    del sys.modules["my_nets"]
    sys.path.remove(str(tmp_path))
    pathlib.Path("my_nets.py").unlink()
    assert "needs the module 'my_nets'" in refusal("whole.pt", trust=True)


def test_trust_does_not_turn_an_error_inside_the_file_into_a_traceback(saved, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert "ZeroDivisionError" in refusal(saved({"x": Calls(divmod, 1, 0)}), trust=True)
    assert "SystemExit" in refusal(saved({"x": Calls(exec, "raise SystemExit(3)")}), trust=True)


# ---- files that cannot be used --------------------------------------------------------------------------


def other_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "none")


def script(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/constants.pkl", b"")
        archive.writestr("model/data.pkl", b"")


def cut(part, **options):
    def write(path):
        torch.save(state(), path, **options)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * part)])

    return write


def saving(content, **options):
    return lambda path: torch.save(content, path, **options)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.touch(), "is empty"),
        (lambda path: path.symlink_to(path), "symbolic links"),
        (lambda path: os.mkfifo(path), "not a regular file"),
        (
            lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
            "git lfs pull",
        ),
        (lambda path: path.write_text("hello, this is text"), "text, not weights"),
        (lambda path: path.write_bytes(b"\x02\0\0\0\0\0\0\0{}" + bytes(8)), "safetensors"),
        (lambda path: path.write_bytes(b"\x80"), "truncated or damaged"),
        (lambda path: path.write_bytes(b"\x80\x02" + bytes(range(256))), "a plain pickle"),
        (lambda path: path.write_bytes(pickle.dumps({"a": 1}, 5)), "`trust=True`"),
        (other_zip, "not one that torch.save wrote"),
        (script, "TorchScript"),
        (cut(0.3), "truncated or damaged"),
        (cut(0.9), "truncated or damaged"),
        (cut(0.2, _use_new_zipfile_serialization=False), "truncated or damaged"),
        (cut(0.95, _use_new_zipfile_serialization=False), "truncated or damaged"),
        (saving({}), "no tensors in it"),
        (saving({"epoch": 3, "config": {"a": 1}}), "no tensors in it, only epoch, config"),
        (saving([torch.ones(2)]), "a list, not a state dict"),
        (saving(torch.ones(2)), "a Tensor, not a state dict"),
        (saving(torch.optim.Adam(nn.Linear(1, 1).parameters()).state_dict()), "an optimizer's state"),
        (
            saving({"optimizer_state_dict": {"state": {0: {"m": torch.ones(1)}}}, "epoch": 1}),
            "an optimizer's state",
        ),
        (saving({"optimizer_states": [{"state": {0: {"m": torch.ones(1)}}}]}), "an optimizer's state"),
    ],
)
def test_unusable_files_are_refused_in_one_line(tmp_path, write, words):
    path = tmp_path / "weights.bin"
    write(path)
    assert words in refusal(path)


def test_a_file_without_permission_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(state(), path)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    assert "Permission denied" in refusal(path)


# ---- weights that do not fit ----------------------------------------------------------------------------


def misfit(model, checkpoint, **options):
    """The one line in which weights are refused, after which the network is as it was."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, checkpoint, **options)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    text = str(caught.value)
    assert "\n" not in text
    assert checkpoint.path in text
    return text


def test_nothing_matched_fails_even_when_missing_is_allowed(saved):
    checkpoint = read_checkpoint(saved({"other.kernel": torch.ones(2)}))
    for allow in (False, True):
        text = misfit(small(2), checkpoint, allow_missing=allow)
        assert "nothing in it belongs to this network" in text
        assert "other.kernel" in text


def test_the_first_other_shape_is_named_and_the_rest_counted(saved):
    text = misfit(small(2), read_checkpoint(saved(state(width=5))))
    assert "spectral has shape (5, 2) in it and (3, 2) in the network" in text
    assert "(6 more parameters differ)" in text


def test_complex_weights_do_not_go_into_a_real_parameter(saved):
    weights = state() | {"lifter.weight": torch.ones(3, 1, 1, 1, dtype=torch.complex64)}
    text = misfit(small(2), read_checkpoint(saved(weights)))
    assert "lifter.weight is torch.complex64 in it and torch.float32 in the network" in text


def test_missing_parameters_are_counted_and_can_be_allowed(saved):
    weights = {name: value for name, value in state().items() if not name.startswith("norm")}
    checkpoint = read_checkpoint(saved(weights))
    text = misfit(small(2), checkpoint)
    assert "4 of the network's 8 parameters are missing from it: norm.weight, norm.bias" in text
    assert "`allow_missing=True`" in text
    model = small(2)
    match = load_weights(model, checkpoint, allow_missing=True)
    assert match.missing == ("norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")
    assert "left at their initial values: norm.weight" in match.warnings[0]
    assert torch.equal(weights["lifter.weight"], model.lifter.weight)
    assert torch.equal(small(2).norm.running_mean, model.norm.running_mean)


def test_batch_counters_may_be_absent(saved):
    weights = state()
    del weights["norm.num_batches_tracked"]
    model = small(2)
    assert load_weights(model, read_checkpoint(saved(weights))).missing == ()
    assert same(model)


def test_tensors_without_a_place_are_reported(saved):
    match = load_weights(small(2), read_checkpoint(saved(state() | {"norm.gate": torch.ones(1)})))
    assert match.unexpected == ("norm.gate",)
    assert match.warnings == ("in the checkpoint, but without a place in the network: norm.gate.",)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_load_into_the_networks_own(saved, dtype):
    weights = {
        name: value.to(dtype) if value.is_floating_point() else value for name, value in state().items()
    }
    model = small(2)
    load_weights(model, read_checkpoint(saved(weights)))
    assert model.lifter.weight.dtype == torch.float32
    torch.testing.assert_close(model.lifter.weight, small(1).lifter.weight, atol=1e-2, rtol=1e-2)


def test_a_failure_inside_the_network_puts_its_weights_back(saved):
    class Picky(Small):
        def load_state_dict(self, state_dict, strict=True, assign=False):
            super().load_state_dict(state_dict, strict, assign)
            raise ValueError("not these")

    text = misfit(Picky(), read_checkpoint(saved(state())))
    assert "ValueError: not these" in text


def test_lazy_networks_are_refused(saved):
    with pytest.raises(CheckpointError, match="at its first forward"):
        load_weights(nn.LazyLinear(3), read_checkpoint(saved(state())))


def test_the_network_keeps_its_mode_and_its_gradients(saved):
    model = small(2).train()
    load_weights(model, read_checkpoint(saved(state())))
    assert model.training
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in model.parameters())


def test_subtrees_are_listed_likeliest_first(saved):
    weights = state(1, "model.autoencoder.") | state(1, "model.generator.") | {"extra.x": torch.ones(1)}
    checkpoint = read_checkpoint(saved(weights))
    assert [tree.prefix for tree in subtrees(checkpoint)][:3] == ["model.generator", "", "model"]
    shapes = {name: tuple(value.shape) for name, value in state().items()}
    found = find_weights(checkpoint, shapes)
    assert [tree.prefix for tree in found] == ["model.generator", "model.autoencoder"]
    assert found[0].names["lifter.weight"] == "model.generator.lifter.weight"
