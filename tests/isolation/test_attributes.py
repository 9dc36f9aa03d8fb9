"""Plain attributes of modules are put back like buffers, so each batch meets them as in a user's call."""

import collections
import dataclasses
import io
import random
import threading
import types

import numpy as np
import pytest
import torch
from torch import nn

import fno_telemetry as ft
from support.notes import Notes


def square(output, batch):
    return output.square().mean()


@dataclasses.dataclass
class Memory:
    """An object in an attribute, with a container and a tensor of its own."""

    steps: int = 0
    past: list = dataclasses.field(default_factory=list)
    mean: torch.Tensor = dataclasses.field(default_factory=lambda: torch.zeros(2))


class Slotted:
    __slots__ = ("first", "later")

    def __init__(self):
        self.first = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    past: list


class Forward(nn.Module):
    """A layer whose forward does `act(module, x)` first; `made` is its attribute `state`."""

    def __init__(self, made, act):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.state = made
        self.act = act

    def forward(self, x):
        self.act(self, x)
        return self.layer(x)


def rebind(module, x):
    module.state = x + module.state


def reorder(state):
    state["new"] = 1
    state.move_to_end("a")


def write_memory(state):
    state.steps, state.new = 5, 1
    state.past.append(2)
    state.mean.add_(1)


def write_slots(state):
    state.first += 1
    state.later = 5


def poke(module):
    module.state.registered = module.layer.register_forward_hook(lambda *_: None)
    module.layer.cache = module.state
    module.alias = module.layer
    module.register_buffer("created", torch.ones(1))
    module.extra = torch.ones(1)


KINDS = {
    "a count": (lambda: 300, lambda m, x: setattr(m, "state", m.state + 1)),
    "a tensor, rebound": (lambda: torch.zeros(2), rebind),
    "a tensor, in place": (lambda: torch.zeros(2), lambda m, x: m.state.add_(1)),
    "a tensor, through data": (lambda: torch.zeros(2), lambda m, x: m.state.data.add_(1)),
    "a tensor, resized": (lambda: torch.zeros(2), lambda m, x: m.state.resize_(3).fill_(1)),
    "a tensor that is to require gradients": (lambda: torch.zeros(2), lambda m, x: m.state.requires_grad_()),
    "a list": (lambda: [1], lambda m, x: m.state.append(x)),
    "a dict": (lambda: {"a": [1]}, lambda m, x: m.state.update(b=m.state.pop("a", 0))),
    "an ordered dict": (lambda: collections.OrderedDict(a=1, b=2), lambda m, x: reorder(m.state)),
    "a default dict": (lambda: collections.defaultdict(list), lambda m, x: m.state["k"].append(1)),
    "a counter": (lambda: collections.Counter("ab"), lambda m, x: m.state.update("b")),
    "a set": (lambda: {1}, lambda m, x: m.state.add(2)),
    "a deque": (lambda: collections.deque([1, 2], maxlen=2), lambda m, x: m.state.append(3)),
    "bytes": (lambda: bytearray(b"ab"), lambda m, x: m.state.extend(b"c")),
    "an array": (lambda: np.zeros(2), lambda m, x: m.state.__iadd__(1)),
    "an array of objects": (lambda: np.array([[1], None], object), lambda m, x: m.state[0].append(2)),
    "an object": (Memory, lambda m, x: write_memory(m.state)),
    "a frozen object with slots": (lambda: Frozen([1]), lambda m, x: m.state.past.append(2)),
    "an object with slots": (Slotted, lambda m, x: write_slots(m.state)),
    "a namespace": (lambda: types.SimpleNamespace(a=[1]), lambda m, x: m.state.a.append(2)),
    "a tuple": (lambda: ([1], {"k": torch.zeros(1)}), lambda m, x: m.state[1]["k"].fill_(7)),
    "random numbers": (lambda: random.Random(0), lambda m, x: m.state.random()),
    "NumPy's random numbers": (lambda: np.random.default_rng(0), lambda m, x: m.state.random()),
    "torch's random numbers": (
        lambda: torch.Generator().manual_seed(0),
        lambda m, x: torch.rand(1, generator=m.state),
    ),
    "text in memory": (lambda: io.StringIO("ab"), lambda m, x: m.state.write("cde")),
    "an iterator": (lambda: iter([1, 2, 3]), lambda m, x: next(m.state)),
    "iterators inside an iterator": (
        lambda: zip([1, 2, 3], range(9), strict=False),
        lambda m, x: next(m.state),
    ),
    "a layer in a list": (lambda: [nn.BatchNorm1d(2)], lambda m, x: m.state[0](x)),
    "a list with a lock": (
        lambda: types.SimpleNamespace(lock=threading.Lock(), past=[]),
        lambda m, x: m.state.past.append(x),
    ),
    "what a forward leaves at other places": (lambda: types.SimpleNamespace(), lambda m, x: poke(m)),
}


def read(value, inside=()):
    """All that is in an object, in a form that can be compared."""
    if id(value) in inside:
        return "around"
    inside = (*inside, id(value))
    match value:
        case torch.Tensor():
            return (id(value), value.tolist(), value.requires_grad)
        case np.ndarray():
            return (id(value), [read(part, inside) for part in value.ravel().tolist()])
        case dict():
            return (id(value), [(key, read(part, inside)) for key, part in value.items()])
        case list() | tuple() | collections.deque():
            return (id(value), [read(part, inside) for part in value])
        case random.Random():
            return value.getstate()
        case np.random.Generator():
            return repr(value.bit_generator.state)
        case torch.Generator():
            return value.get_state().tolist()
        case io.StringIO():
            return (value.getvalue(), value.tell())
        case zip():
            return [part.__reduce__()[-1] for part in value.__reduce__()[1]]
        case collections.abc.Iterator():
            return value.__reduce__()[-1]
        case Slotted():
            return (value.first, hasattr(value, "later"))
        case Frozen():
            return list(value.past)
        case nn.Module() | Memory() | types.SimpleNamespace():
            return (id(value), read(vars(value), inside))
    return repr(value)


@pytest.mark.parametrize("kind", KINDS)
def test_an_attribute_is_afterwards_what_it_was(kind):
    make, act = KINDS[kind]
    model = Forward(make(), act)
    before = read(model)
    ft.map_model(model, torch.rand(3, 2))
    assert read(model) == before
    record = ft.capture(model, [torch.rand(3, 2)] * 2, loss=square)
    assert (read(model), record.warnings, record.errors) == (before, (), ())


class Rollout(nn.Module):
    """Adds up its inputs from call to call, like a memory that was not reset."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Identity()
        self.total, self.calls = None, 0

    def forward(self, x):
        self.calls += 1
        self.total = x if self.total is None else self.total + x
        return self.layer(self.total * self.calls)


@pytest.mark.parametrize("loss", [None, lambda output, batch: output.mean() + 0 * batch.sum()])
def test_the_first_batch_meets_the_state_that_the_users_first_call_would(loss):
    model, batches = Rollout(), [torch.ones(2, 3), torch.ones(2, 3)]
    record = ft.capture(model, batches, loss=loss)
    # 1 in the first call; in the second (1 + 1) * 2.
    assert record.layers["layer/mean"] == (1, 4)
    assert (model.total, model.calls) == (None, 0)


class BothWays(nn.Module):
    """Is called as a whole and in parts, so that its structure takes two forwards to detect."""

    def __init__(self):
        super().__init__()
        self.first = nn.Identity()
        self.seen = Notes()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        self.seen.append(self.calls)
        return self.first(x)


def test_every_forward_of_structure_detection_meets_the_same_state():
    model = BothWays()
    ft.map_model(model, [torch.ones(2, 3)], forward=lambda x: model(model.first(x)))
    assert list(model.seen) == [1, 1]


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: nn.Sequential(model)])
def test_attributes_inside_a_wrapper_are_put_back(wrap):
    inner = Forward([], lambda module, x: module.state.append(x))
    record = ft.capture(wrap(inner), torch.rand(3, 2))
    assert (inner.state, record.warnings) == ([], ())


class Counting(nn.Module):
    """Counts in an attribute that TorchScript keeps."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.total = torch.zeros(2)

    def forward(self, x):
        self.calls += 1
        self.total += x.mean(0)
        return x * self.calls


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_attributes_in_torchscript_are_put_back():
    part = torch.jit.script(Counting())
    model = nn.Sequential(part, nn.Linear(2, 2))
    expected = model[1](torch.ones(3, 2)).detach().mean()
    record = ft.capture(model, torch.ones(3, 2), loss=square)
    assert (part.calls, part.total.tolist()) == (0, [0, 0])
    assert record.output.stats["mean"] == pytest.approx(float(expected))


def test_what_cannot_be_put_back_is_named_if_it_changed(tmp_path):
    with (tmp_path / "log.txt").open("w") as file:
        state = {
            "source": (number for number in range(99)),
            "file": file,
            "idle": iter(()),
            "lock": threading.Lock(),
        }
        model = nn.Sequential(
            Forward(state, lambda module, x: (next(module.state["source"]), file.write("a")))
        )
        record = ft.capture(model, torch.rand(3, 2))
        assert ft.map_model(model, torch.rand(3, 2)).warnings == record.warnings
    assert record.warnings == (
        "0.state (generator), 0.state (TextIOWrapper): changed by the forward and cannot be put back, so the "
        "numbers may be those of a later call",
    )


def test_large_tensors_are_not_copied_but_named_when_they_are_written(monkeypatch):
    monkeypatch.setattr("fno_telemetry.isolation.attributes.MOST_BYTES", 100)
    model = Forward([torch.zeros(20), torch.zeros(20)], lambda module, x: module.state[1].add_(1))
    assert ft.capture(model, torch.rand(3, 2)).warnings == (
        "state (Tensor): changed by the forward and cannot be put back, so the numbers may be those of a "
        "later call",
    )
    rebound = Forward(torch.zeros(50), lambda module, x: setattr(module, "state", None))
    before = rebound.state
    assert ft.capture(rebound, torch.rand(3, 2)).warnings == ()
    assert rebound.state is before


class Renormed(nn.Module):
    """Limits its weights in the forward, as max-norm layers do, and makes one of them anew."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        self.layer.weight.data = torch.renorm(self.layer.weight.data, 2, 0, 0.1)
        self.layer.bias.data.mul_(0.5)
        self.scale = nn.Parameter(self.scale * 2)
        return self.layer(x) * self.scale


def test_parameters_that_the_forward_writes_are_put_back():
    model = Renormed()
    before = {name: (id(p), p.tolist()) for name, p in model.named_parameters()}
    record = ft.capture(model, torch.rand(4, 3), loss=square)
    assert {name: (id(p), p.tolist()) for name, p in model.named_parameters()} == before
    assert record.warnings == ()


class Rebinding(nn.Module):
    """Gives its parameter the memory of another tensor: averaged weights, or those in another precision."""

    def __init__(self, act):
        super().__init__()
        self.layer, self.act = nn.Linear(3, 2), act
        self.average = torch.full((2, 3), 2.0)

    def forward(self, x):
        self.act(self)
        return self.layer(x.to(self.layer.weight.dtype)).float()


OUTSIDE = torch.full((2, 3), 7.0)


@pytest.mark.parametrize(
    "act",
    [
        lambda model: setattr(model.layer.weight, "data", model.average),
        lambda model: setattr(model.layer.weight, "data", OUTSIDE),
        lambda model: setattr(model.layer.weight, "data", model.layer.weight.data[:1].expand(2, 3)),
        lambda model: model.layer.to(torch.float64),
        lambda model: model.layer.to(torch.bfloat16),
    ],
    ids=["own tensor", "foreign tensor", "view", "wider", "narrower"],
)
def test_a_parameter_gets_its_own_memory_back(act):
    model = Rebinding(act)
    weight = model.layer.weight
    place, values, memory = weight.data_ptr(), weight.tolist(), weight.untyped_storage()
    for run in (ft.map_model, ft.capture):
        assert run(model, torch.rand(4, 3)).warnings == ()
        assert model.layer.weight is weight
        assert (weight.data_ptr(), weight.dtype, weight.tolist()) == (place, torch.float32, values)
        assert memory.data_ptr() == place
        assert model.average.tolist() == [[2.0] * 3] * 2
        assert OUTSIDE.tolist() == [[7.0] * 3] * 2


class Hooking(nn.Module):
    """Registers hooks on tensors and sets attributes of them."""

    def __init__(self):
        super().__init__()
        self.layer, self.plain = nn.Linear(3, 2), torch.zeros(2)
        self.layer.weight.calls = 0

    def forward(self, x):
        self.layer.weight.register_hook(lambda grad: grad * 0.5)
        self.layer.bias.register_post_accumulate_grad_hook(lambda parameter: None)
        self.layer.weight.calls += 1
        self.layer.bias.seen = self.plain.seen = True
        return self.layer(x) + self.plain


def test_hooks_and_attributes_of_tensors_are_put_back():
    model = Hooking()
    earlier = model.layer.weight.register_hook(lambda grad: grad * 3)
    for kept in ({}, {"loss": square}):
        assert ft.capture(model, torch.rand(4, 3), **kept).warnings == ()
    assert model.layer.weight.calls == 0
    assert not hasattr(model.layer.bias, "seen")
    assert not hasattr(model.plain, "seen")
    assert not model.layer.bias._post_accumulate_grad_hooks
    model.layer.weight.sum().backward()
    assert model.layer.weight.grad.tolist() == [[3.0] * 3] * 2
    earlier.remove()
    model.layer.weight.grad = None
    model.layer.weight.sum().backward()
    assert model.layer.weight.grad.tolist() == [[1.0] * 3] * 2


class CountsInInference(nn.Module):
    """A buffer that was made and is written in inference mode."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        with torch.inference_mode():
            self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        with torch.inference_mode():
            self.calls += 1
        return self.layer(x)


def test_a_buffer_of_inference_mode_is_put_back():
    model = CountsInInference()
    assert ft.capture(model, torch.rand(4, 3)).errors == ()
    assert model.calls.tolist() == [0.0]


class Wrapped(nn.Module):
    """Parametrizes its layer in its first forward."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        if not nn.utils.parametrize.is_parametrized(self.layer):
            nn.utils.parametrizations.weight_norm(self.layer)
        return self.layer(x)


def test_what_the_first_forward_replaces_stays_replaced():
    model, other = Wrapped(), Wrapped()
    ft.map_model(model, torch.rand(4, 3))
    other(torch.rand(4, 3))
    assert list(model.state_dict()) == list(other.state_dict())
    other.load_state_dict(model.state_dict())


class BuiltLate(nn.Module):
    """Builds its layer in its first forward, and notes so in a flag."""

    def __init__(self):
        super().__init__()
        self.built, self.calls = False, 0

    def forward(self, x):
        self.calls += 1
        if not self.built:
            self.layer = nn.Linear(x.shape[-1], 2)
            self.register_buffer("grid", torch.ones(2))
            self.built = True
        return self.layer(x) * self.grid


def test_what_the_first_forward_builds_stays_with_the_attributes_that_say_so():
    model = BuiltLate()
    record = ft.capture(model, torch.rand(4, 3), loss=square)
    assert [module.name for module in record.modules] == ["layer"]
    assert record.module("layer").stats["grad_norm"] > 0
    layer = model.layer
    assert (model.built, list(model._buffers)) == (True, ["grid"])
    assert record.warnings == (
        "the first forward builds parts of the model; they stay, and so does what it changed: built, calls",
    )
    assert ft.capture(model, torch.rand(4, 3)).warnings == ()
    model(torch.rand(4, 3))
    assert (model.layer is layer, model.calls) == (True, 2)
