"""Batches from a function or iterable that the user names."""

import sys
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import pytest
import torch

from fno_telemetry.errors import InputError
from fno_telemetry.sources import count_samples, describe_call, first_tensor, move_batch, read_batches


@dataclass(frozen=True)
class Batch:
    name: str
    x: torch.Tensor


NINE = ", ".join(f"{index}: (3,) float32" for index in range(6))


@pytest.fixture
def batches(monkeypatch):
    """Make `loaders:made` return or yield what is given."""

    def make(made: object) -> str:
        module = ModuleType("loaders_of_a_test")
        module.made = made
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return "loaders_of_a_test:made"

    return make


def test_tensors_are_cut_to_the_samples_that_are_wanted(batches):
    spec = batches(lambda: iter([torch.zeros(3, 1), torch.ones(3, 1), torch.ones(3, 1)]))
    first, second = read_batches(spec, 5)
    assert torch.equal(first, torch.zeros(3, 1))
    assert torch.equal(second, torch.ones(2, 1))


@pytest.mark.parametrize(
    "batch",
    [(torch.ones(3, 1), "text"), {"x": torch.ones(3, 1)}, Batch("a", torch.ones(3, 1)), [torch.ones(3, 1)]],
    ids=lambda batch: type(batch).__name__,
)
def test_other_batches_stay_whole_and_count_by_their_first_tensor(batches, batch):
    [kept, _] = read_batches(batches(lambda: iter([batch, batch, batch])), 4)
    assert kept is batch
    assert count_samples(batch) == 3
    assert torch.equal(first_tensor([batch]), torch.ones(3, 1))


@pytest.mark.parametrize("made", [torch.ones(2, 1), (torch.ones(2, 1), 3.0), {"x": torch.ones(2, 1)}])
def test_one_batch_needs_no_list(batches, made):
    [batch] = read_batches(batches(made), 8)
    assert batch is made or torch.equal(batch, made)


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ((torch.ones(3, 1),), "one argument: (3, 1) float32"),
        ([torch.ones(3), "a", None], "3 positional arguments: (3,) float32, str, NoneType"),
        ({"x": torch.ones(3).cfloat()}, "1 keyword argument: x=(3,) complex64"),
        ((np.ones((2, 3)),), "one argument: (2, 3) float64"),
        ((Batch("a", torch.ones(3, 1)),), "one argument: Batch of (name: str, x: (3, 1) float32)"),
        (([torch.ones(3)] * 9,), f"one argument: list of ({NINE} and 3 more)"),
        ((), "no argument"),
        ((3,), "one argument: int"),
    ],
)
def test_a_batch_is_described_as_the_model_gets_it(batch, words):
    args, keywords = ((), batch) if isinstance(batch, dict) else (batch, {})
    assert describe_call(args, keywords) == words


def test_positional_and_keyword_arguments_are_described_together():
    described = describe_call((torch.ones(3), None), {"mask": torch.ones(2).bool()})
    assert (
        described == "2 positional arguments: (3,) float32, NoneType and 1 keyword argument: mask=(2,) bool"
    )


def test_every_tensor_of_a_batch_moves_and_the_batch_itself_stays():
    batch = Batch("a", torch.ones(3, 1))
    moved = move_batch(batch, torch.device("meta"))
    assert (moved.name, moved.x.device.type, batch.x.device.type) == ("a", "meta", "cpu")


def fail():
    yield torch.ones(1, 1)
    raise OSError("the disk is gone")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (7, "gave a int; a list or generator"),
        (list, "gave no batch"),
        (lambda: [[1, 2]], "a batch of type list without a tensor"),
        (lambda: [Batch("a", "text")], "a batch of type Batch without a tensor"),
        (fail, "raised OSError: the disk is gone"),
    ],
)
def test_what_cannot_be_run_is_one_line_about_the_argument(batches, made, words):
    spec = batches(made)
    with pytest.raises(InputError) as caught:
        read_batches(spec, 4)
    assert str(caught.value).startswith(f"`batches` {spec} ")
    assert words in str(caught.value)
