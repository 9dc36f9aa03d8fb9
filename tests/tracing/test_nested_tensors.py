"""Tensors inside nested values: found and changed by one rule."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import pytest
import torch

from fno_telemetry.tracing.nested_tensors import copy_tensors, items, map_tensors

Pair = namedtuple("Pair", "x y")


@dataclass
class Fields:
    x: torch.Tensor
    name: str = "fields"
    squared: torch.Tensor = field(init=False)

    def __post_init__(self):
        self.squared = self.x**2


@dataclass(frozen=True)
class Frozen:
    x: torch.Tensor
    inner: dict[str, Any]


@dataclass
class Unset:
    x: torch.Tensor
    later: torch.Tensor = field(init=False)


ONE, TWO = torch.ones(2), torch.full((2,), 2.0)
HOLDERS = {
    "tensor": ONE,
    "tuple": (ONE, "text", TWO),
    "list": [ONE, [TWO]],
    "dict": {"x": ONE, 3: (TWO,)},
    "ordered dict": OrderedDict(b=ONE, a=TWO),
    "read-only mapping": MappingProxyType({"x": ONE}),
    "named tuple": Pair(ONE, [TWO]),
    "values of torch": torch.max(torch.eye(2), 0),
    "dataclass": Fields(ONE),
    "dataclass with a field that is not set": Unset(ONE),
    "frozen dataclass": Frozen(ONE, {"y": Pair(TWO, None)}),
}


@pytest.mark.parametrize("value", HOLDERS.values(), ids=HOLDERS)
def test_every_tensor_that_is_found_is_changed_and_stays_in_its_place(value):
    before = [(name, tensor.clone()) for name, tensor in items(value)]
    changed = map_tensors(value, lambda tensor: tensor + 1)
    assert type(changed) is (dict if isinstance(value, MappingProxyType) else type(value))
    for (name, old), (same, new), (_, kept) in zip(before, items(changed), items(value), strict=True):
        assert name == same
        assert torch.equal(new, old + 1)
        assert torch.equal(kept, old)


@pytest.mark.parametrize("value", [3, "text", [1, ("a",)], {"a": None}, object(), Pair(1, 2)])
def test_what_holds_no_tensor_is_the_same_object(value):
    assert map_tensors(value, lambda tensor: tensor + 1) is value


def test_what_holds_itself_is_changed_once():
    value: list[Any] = [ONE]
    value.append(value)
    first, again = map_tensors(value, lambda tensor: tensor + 1)
    assert torch.equal(first, TWO)
    assert again is value


def test_copies_are_leaves_that_take_gradients_where_the_originals_do():
    x = torch.ones(2, requires_grad=True)
    copied = copy_tensors(Frozen(x * 2, {"y": ONE}))
    assert copied.x.is_leaf
    assert (copied.x.requires_grad, copied.inner["y"].requires_grad) == (True, False)
    assert copied.inner["y"] is not ONE
