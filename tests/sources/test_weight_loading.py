"""Loading by the network's own code: what it takes is not missing, and what fails leaves no trace."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fno_telemetry.errors import CheckpointError
from fno_telemetry.sources.checkpoints import read_checkpoint
from fno_telemetry.sources.weight_loading import load_weights

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")


def norm_before() -> nn.Module:
    return nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 2)), nn.Linear(2, 1))


def norm_now() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), nn.Linear(2, 1))


@pytest.mark.parametrize("prefix", ["", "module.", "model.generator."])
@pytest.mark.parametrize("wrap", [lambda model: model, nn.DataParallel])
def test_old_weight_norm_loads_below_any_prefix_into_any_wrapper(tmp_path, prefix, wrap):
    old = norm_before()
    path = tmp_path / "old.pt"
    torch.save({"state_dict": {f"{prefix}{name}": value for name, value in old.state_dict().items()}}, path)
    model = wrap(norm_now())
    match = load_weights(model, read_checkpoint(path))
    x = torch.randn(4, 3)
    assert torch.equal(getattr(model, "module", model)(x), old(x))
    assert (match.missing, match.unexpected, match.warnings) == ((), (), ())
    assert match.matched == tuple(model.state_dict())


class Renames(nn.Module):
    """Takes what was called `stem.*` as `lift.*`, in any place of a network."""

    def __init__(self) -> None:
        super().__init__()
        self.lift = nn.Linear(2, 2)
        self.register_load_state_dict_pre_hook(self._rename)

    @staticmethod
    def _rename(module, entries, prefix, *_):
        for name in [name for name in entries if name.startswith(f"{prefix}stem.")]:
            entries[name.replace("stem.", "lift.")] = entries.pop(name)


def test_entries_that_are_all_renamed_load_from_where_they_fit(tmp_path):
    path = tmp_path / "w.pt"
    weights = {"stem.weight": torch.ones(2, 2), "stem.bias": torch.zeros(2)}
    for content in (weights, {"ema": weights}, {f"trainer.net.{k}": v for k, v in weights.items()}):
        torch.save(content, path)
        model = Renames()
        assert load_weights(model, read_checkpoint(path)).matched == ("lift.weight", "lift.bias")
        assert torch.equal(model.lift.weight, torch.ones(2, 2))


class Reshapes(nn.Module):
    """Was a vector before, and was turned before version 2."""

    _version = 2

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(3, 1))
        self.square = nn.Parameter(torch.zeros(2, 2))

    def _load_from_state_dict(self, entries, prefix, local, *more):
        if f"{prefix}gate" in entries and entries[f"{prefix}gate"].dim() == 1:
            entries[f"{prefix}gate"] = entries[f"{prefix}gate"][:, None]
        if local.get("version", 1) < 2:
            entries[f"{prefix}square"] = entries[f"{prefix}square"].T
        super()._load_from_state_dict(entries, prefix, local, *more)


@pytest.mark.parametrize("outer", [False, True])
def test_modules_see_the_version_that_wrote_the_weights(tmp_path, outer):
    square = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    old = {"gate": torch.ones(3), "square": square}
    own = Reshapes()
    with torch.no_grad():
        own.square.copy_(square)
    now = own.state_dict()
    if outer:
        now = nn.Sequential(own).state_dict()
        old = {f"0.{name}": value for name, value in old.items()}
    for weights, expected in ((old, square.T), (now, square)):
        path = tmp_path / "w.pt"
        torch.save({"model": weights}, path)
        model = Reshapes()
        load_weights(nn.Sequential(model) if outer else model, read_checkpoint(path))
        assert torch.equal(model.square, expected)


class Fails(nn.Module):
    """Changes itself while loading, and then raises."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.scale = nn.Parameter(torch.ones(2))
        self.register_buffer("seen", torch.zeros(3))
        self.loads = 0

    def _load_from_state_dict(self, *arguments):
        super()._load_from_state_dict(*arguments)
        self.loads += 1
        self.extra = "new"
        self.scale = nn.Parameter(torch.zeros(7))
        self.first.weight.data = torch.zeros(5, 5)
        self.seen.resize_(9).fill_(4)
        self.second = nn.Linear(1, 1)
        raise RuntimeError("first line\nsecond line")


def test_a_network_whose_own_code_fails_is_as_it_was(tmp_path):
    model = Fails()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    parameters = dict(model.named_parameters())
    torch.save({name: value + 1 for name, value in before.items()}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="RuntimeError: first line second line"):
        load_weights(model, read_checkpoint(tmp_path / "w.pt"))
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    assert all(parameter is parameters[name] for name, parameter in model.named_parameters())
    assert (model.loads, hasattr(model, "extra"), hasattr(model, "second")) == (0, False, False)


def test_what_is_missing_in_spite_of_hooks_is_refused_and_leaves_no_trace(tmp_path):
    model = nn.Sequential(Renames(), nn.Linear(2, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.save({"0.stem.weight": torch.ones(2, 2), "1.bias": torch.ones(2)}, tmp_path / "w.pt")
    checkpoint = read_checkpoint(tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"2 of the network's 4 parameters .* 0.lift.bias, 1.weight"):
        load_weights(model, checkpoint)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    match = load_weights(model, checkpoint, allow_missing=True)
    assert match.missing == ("0.lift.bias", "1.weight")
    assert torch.equal(model[0].lift.weight, torch.ones(2, 2))


class Lenient(nn.Module):
    """Loads nothing and finds nothing missing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def _load_from_state_dict(self, entries, prefix, local, strict, missing, unexpected, errors):
        unexpected += list(entries)


def test_a_network_that_takes_nothing_is_not_loaded(tmp_path):
    torch.save({"other": torch.ones(2)}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="nothing in it belongs to this network"):
        load_weights(Lenient(), read_checkpoint(tmp_path / "w.pt"), allow_missing=True)


class Tied(nn.Module):
    """Two names for one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.outside = nn.Linear(2, 2), nn.Linear(2, 2)
        self.outside.weight = self.inside.weight


def test_the_second_name_of_a_shared_parameter_is_not_missing(tmp_path):
    weights = {name: value + 1 for name, value in Tied().state_dict().items()}
    del weights["outside.weight"]
    save_file(weights, tmp_path / "w.safetensors")
    model = Tied()
    assert load_weights(model, read_checkpoint(tmp_path / "w.safetensors")).missing == ()
    assert torch.equal(model.outside.weight, weights["inside.weight"])


class Scaled(nn.Module):
    """Keeps a plain value next to its parameter."""

    def __init__(self, scale: object) -> None:
        super().__init__()
        self.weight, self.scale = nn.Parameter(torch.ones(1)), scale

    def get_extra_state(self):
        return {"scale": self.scale}

    def set_extra_state(self, state):
        self.scale = state["scale"]


@pytest.mark.parametrize("wrap", [lambda model: model, nn.DataParallel])
def test_the_extra_state_of_modules_is_loaded(tmp_path, wrap):
    saved = nn.Sequential(Scaled(0.5), Scaled([1, torch.tensor(2.0)]))
    torch.save(
        {"model": {f"net.{name}": value for name, value in saved.state_dict().items()}}, tmp_path / "w"
    )
    model = nn.Sequential(Scaled(1), Scaled(1))
    assert load_weights(wrap(model), read_checkpoint(tmp_path / "w")).warnings == ()
    assert [module.scale for module in model] == [0.5, [1, torch.tensor(2.0)]]


def test_an_extra_state_that_is_not_there_is_named(tmp_path):
    save_file({"0.weight": torch.zeros(1)}, tmp_path / "w.safetensors")
    model = nn.Sequential(Scaled(3))
    match = load_weights(model, read_checkpoint(tmp_path / "w.safetensors"))
    assert "left at their initial values: 0._extra_state" in match.warnings[0]
    assert (model[0].scale, match.missing) == (3, ())


def test_a_network_put_back_after_a_failure_may_have_parts_without_values(tmp_path):
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1, device="meta"), nn.Linear(1, 1).half())
    before = [parameter.clone() for parameter in model.parameters()]
    torch.save({"0.weight": torch.zeros(1, 1), "2.weight": torch.zeros(1, 1)}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="are missing"):
        load_weights(model, read_checkpoint(tmp_path / "w.pt"))
    for parameter, value in zip(model.parameters(), before, strict=True):
        assert parameter.is_meta or torch.equal(parameter, value)
