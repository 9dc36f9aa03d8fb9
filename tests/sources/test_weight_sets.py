"""Several sets of weights in one file: the network's own is taken, the others are named and can be chosen."""

import collections

import pytest
import torch
from torch import nn

from fno_telemetry.errors import CheckpointError
from fno_telemetry.sources.checkpoints import read_checkpoint
from fno_telemetry.sources.weight_loading import load_weights


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(collections.OrderedDict(lift=nn.Conv1d(1, 3, 1), norm=nn.BatchNorm1d(3)))


def state(seed: int, prefix: str = "") -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": value for name, value in network(seed).state_dict().items()}


def is_state(model: nn.Module, seed: int) -> bool:
    return all(torch.equal(value, state(seed)[name]) for name, value in model.state_dict().items())


OTHER = {"critic.weight": torch.ones(4, 4), "critic.bias": torch.ones(4)}
PARAMETERS = {name: value for name, value in state(2).items() if "running" not in name and "num" not in name}

# What is in the file, the set that is taken by itself, and the other.
FILES = {
    "model, ema": ({"model": state(1), "ema": state(2)}, "model", "ema"),
    "average first": ({"ema_model": state(2), "model": state(1), "epoch": 3}, "model", "ema_model"),
    "average first, no known name": ({"params_ema": state(2), "params": state(1)}, "params", "params_ema"),
    "two of no known name": ({"online": state(1), "target": state(2)}, "online", "target"),
    "wrapped average": (
        {"net": state(1), "net_ema": {"n_averaged": torch.tensor(5)} | state(2, "module.")},
        "net",
        "net_ema",
    ),
    "average without buffers": (
        {"state_dict": state(1), "state_dict_ema": PARAMETERS},
        "state_dict",
        "state_dict_ema",
    ),
    "nested": (
        {"model": {"state_dict": state(1)}, "ema": {"state_dict": state(2), "decay": 0.9}},
        "model.state_dict",
        "ema.state_dict",
    ),
    "inside a key": ({"state": {"model": state(1), "model_ema": state(2)}}, "state.model", "state.model_ema"),
    "inside an unknown key": ({"run": {"net": state(1), "swa": state(2)}}, "run.net", "run.swa"),
    "next to another network": (
        {"model": state(1), "model_ema": state(2), "critic": OTHER, "critic_ema": OTHER},
        "model",
        "model_ema",
    ),
    "with prefixes": (
        {"state_dict": state(1, "net."), "current_model_state": state(2, "net.")},
        "state_dict",
        "current_model_state",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_the_networks_own_set_is_loaded_and_the_other_is_named(tmp_path, case):
    content, taken, other = FILES[case]
    path = tmp_path / "w.pt"
    torch.save(content, path)
    model = network(3)
    match = load_weights(model, read_checkpoint(path))
    assert is_state(model, 1)
    assert (match.weights, match.other_weights) == (taken, (other,))
    assert match.warnings == (
        f"there are several sets of weights for this network: {taken!r} was loaded, not {other!r}. "
        f"`weights={other!r}` chooses another.",
    )


@pytest.mark.parametrize("case", FILES)
def test_each_set_can_be_chosen_by_the_name_that_is_told(tmp_path, case):
    content, *names = FILES[case]
    path = tmp_path / "w.pt"
    torch.save(content, path)
    for seed, name in enumerate(names, 1):
        model = network(3)
        match = load_weights(model, read_checkpoint(path, weights=name), allow_missing=True)
        own = dict(model.named_parameters())
        assert all(torch.equal(own[key], state(seed)[key]) for key in own)
        assert match.weights == name
        assert [warning for warning in match.warnings if "several sets" in warning] == []


def test_sets_with_the_same_values_are_one(tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"model": state(1), "ema": state(1)}, path)
    match = load_weights(network(3), read_checkpoint(path))
    assert (match.warnings, match.other_weights) == ((), ())


def test_mappings_that_are_parts_of_one_network_are_no_sets(tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"encoder": state(1), "decoder": state(2)}, path)
    model = nn.ModuleDict({"encoder": network(3), "decoder": network(4)})
    match = load_weights(model, read_checkpoint(path))
    assert is_state(model["encoder"], 1)
    assert is_state(model["decoder"], 2)
    assert (match.warnings, match.other_weights) == ((), ())


def test_another_network_is_no_other_set(tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"model": state(1), "discriminator": OTHER}, path)
    assert load_weights(network(3), read_checkpoint(path)).warnings == ()


def test_the_state_of_an_optimizer_is_no_set(tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"state": {"w": {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1.0}]}, path)
    with pytest.raises(CheckpointError, match="an optimizer's state"):
        read_checkpoint(path)


def test_a_prefix_inside_a_state_dict_can_be_chosen(tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"state_dict": state(1, "student.") | state(2, "teacher.")}, path)
    with pytest.raises(CheckpointError, match="`weights='student'`"):
        load_weights(network(3), read_checkpoint(path))
    model = network(3)
    load_weights(model, read_checkpoint(path, weights="teacher"))
    assert is_state(model, 2)


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        ({"model": state(1), "ema": state(2)}, "emma", "Did you mean ema? Known: model, ema"),
        ({"net": state(1), "net_ema": state(2)}, "ema", "Did you mean net_ema"),
        (state(1), "ema", "Known: lift, norm"),
        ({"w": torch.ones(1)}, "ema", "There are none"),
    ],
)
def test_an_unknown_name_gets_those_that_there_are(tmp_path, content, name, words):
    path = tmp_path / "w.pt"
    torch.save(content, path)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path, weights=name)
    assert words in str(caught.value)
    assert f"{path}: it has no set of weights called {name!r}" in str(caught.value)


def test_the_beginning_of_a_name_is_enough_if_it_is_the_only_one_that_begins_so(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"model_state_dict": state(1), "ema_state_dict": state(2)}, path)
    model = network(3)
    match = load_weights(model, read_checkpoint(path, weights="ema"))
    assert (match.weights, is_state(model, 2)) == ("ema_state_dict", True)
    torch.save({"model": state(1), "ema_a": state(2), "ema_b": state(3)}, path)
    with pytest.raises(CheckpointError, match="no set of weights called 'ema'"):
        read_checkpoint(path, weights="ema")
