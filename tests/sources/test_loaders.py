"""Batches from a function or iterable that the user names."""

import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from fno_telemetry.errors import InputError
from fno_telemetry.sources import count_samples, find_first, move_batch, read_batches


@dataclass(frozen=True)
class Batch:
    name: str
    x: torch.Tensor


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
    assert torch.equal(find_first(batch), torch.ones(3, 1))


@pytest.mark.parametrize("made", [torch.ones(2, 1), (torch.ones(2, 1), 3.0), {"x": torch.ones(2, 1)}])
def test_one_batch_needs_no_list(batches, made):
    [batch] = read_batches(batches(made), 8)
    assert batch is made or torch.equal(batch, made)


def test_arrays_become_tensors_and_other_objects_are_asked_for_theirs(batches):
    class Graph(SimpleNamespace):
        def to(self, device):
            return Graph(**{name: tensor.to(device) for name, tensor in vars(self).items()})

    array = np.arange(6.0).reshape(3, 2)[:, ::-1]
    [[x, names], graph] = read_batches(
        batches([(array, np.array(["a", "b", "c"])), Graph(x=torch.ones(3, 1))]), 4
    )
    assert torch.equal(x, torch.tensor(array.copy())) and names.tolist() == ["a", "b", "c"]
    assert count_samples(graph) == 3
    assert move_batch(graph, torch.device("meta")).x.device.type == "meta"


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
        (7, "gave a int; expected a tensor, or a list or iterator of batches"),
        (
            TensorDataset(torch.ones(3)),
            "torch.utils.data.DataLoader(dataset, batch_size=4) makes batches of a dataset",
        ),
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
