"""Which parts of a batch go into the model, and the accuracy of its output against the target."""

from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fno_telemetry as ft

GENERATOR = torch.Generator().manual_seed(0)
X, Y = (torch.randn(5, 1, 6, 6, generator=GENERATOR) for _ in range(2))
MASK = (torch.rand(5, 1, 6, 6, generator=GENERATOR) > 0.5).float()
Pair = namedtuple("Pair", "field truth")


@dataclass
class Sample:
    field: torch.Tensor
    truth: torch.Tensor


class Masked(nn.Module):
    """Takes a mask by its name, and writes over its input."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x, *, mask=None):
        x.mul_(0.5)
        output = self.layer(x)
        return output if mask is None else output * mask


def numbers_of(prediction, target):
    """The definitions, in float64."""
    one, other = (np.asarray(side.detach(), dtype=np.complex128) for side in (prediction, target))
    error = np.linalg.norm(one - other) / np.linalg.norm(other)
    return {
        "relative_l2": pytest.approx(error, rel=1e-6),
        "output_to_target_rms": pytest.approx(np.linalg.norm(one) / np.linalg.norm(other), rel=1e-6),
    }


@pytest.fixture
def model():
    return nn.Sequential(nn.Conv2d(1, 1, 3, padding=1))


@pytest.mark.parametrize(
    ("batch", "inputs", "target"),
    [
        ((X, Y), 0, 1),
        ((X, Y), "0", "1"),
        ((X, Y), -2, -1),
        ((X, Y), None, 1),
        ([Y, None, X], [2], 0),
        ({"x": X, "y": Y}, "x", "y"),
        ({"fields": {"x": X}, "y": Y, "names": ["a"]}, ["fields.x"], "y"),
        ((X, {"truth": Y, "mask": None}), 0, "1.truth"),
        ({0: X, "a.b": Y}, 0, "a.b"),
        (Pair(X, Y), "field", "truth"),
        (Pair(X, Y), 0, 1),
        (Sample(X, Y), "field", "truth"),
        (SimpleNamespace(x=X, y=Y), "x", "y"),
        ((X.numpy(), Y.numpy()[:, :, ::-1].copy()[:, :, ::-1]), 0, 1),
        ((X, (Y,)), 0, 1),
    ],
)
def test_chosen_parts_go_in_and_are_compared(model, batch, inputs, target):
    record = ft.capture(model, [batch], inputs=inputs, target=target)
    assert dict(record.accuracy.stats) == numbers_of(model(X), Y)
    alone = ft.capture(model, X)
    assert (record.input, record.inputs, record.modules) == (alone.input, alone.inputs, alone.modules)
    assert record.input_digest == alone.input_digest
    assert record.target == ft.capture(model, Y).input
    plan = ft.plan(model, [batch], inputs=inputs, target=target)
    assert ft.capture(model, [batch], inputs=inputs, target=target, plan=plan).modules == alone.modules
    assert ft.load_report is not None and plan.model_map == ft.map_model(
        model, [batch], inputs=inputs, target=target
    )


def test_without_inputs_all_but_the_target_go_in_as_before():
    model, batch = Masked(), {"x": X.clone(), "mask": MASK, "y": Y}
    record = ft.capture(model, [batch], target="y")
    with torch.no_grad():
        assert dict(record.accuracy.stats) == numbers_of(model(X.clone(), mask=MASK), Y)
    assert [entered.item for entered in record.inputs] == ["x", "mask"]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_an_ordinary_loader_gives_the_accuracy_of_all_samples(model, size):
    loader = DataLoader(TensorDataset(X, Y), batch_size=size)
    record = ft.capture(model, loader, inputs=0, target=1, loss=lambda out, batch: (out - batch[1]).norm())
    assert dict(record.accuracy.stats) == numbers_of(model(X), Y)
    assert record.summary["n_samples"] == 5 and record.target.shape == (5, 1, 6, 6)
    assert record.summary["loss"] > 0


@pytest.mark.parametrize("inputs", [["x", "mask"], ["mask", "x"]])
def test_keys_that_the_forward_has_are_passed_by_name(inputs):
    model, batch = Masked(), {"x": X.clone(), "mask": MASK, "y": Y, "index": torch.arange(5)}
    record = ft.capture(model, [batch], inputs=inputs, target="y")
    with torch.no_grad():
        assert dict(record.accuracy.stats) == numbers_of(model(X.clone(), mask=MASK), Y)
    assert [entered.item for entered in record.inputs] == inputs


def test_other_parts_are_passed_by_position_in_the_order_given():
    class Difference(nn.Module):
        def forward(self, *fields):
            return fields[0] - fields[1]

    record = ft.capture(Difference(), [(X, Y, MASK)], inputs=[2, 0], target=1)
    assert dict(record.accuracy.stats) == numbers_of(MASK - X, Y)
    assert [entered.item for entered in record.inputs] == ["2", "0"]


def test_a_forward_of_the_users_gets_the_chosen_parts(model):
    record = ft.capture(
        model, [(X.double(), Y)], inputs=0, target=1, forward=lambda x: model(x.float()), loss=None
    )
    assert dict(record.accuracy.stats) == numbers_of(model(X), Y)
    whole = ft.capture(model, [(X, Y)], target=1, forward=lambda batch: model(batch[0]))
    assert whole.accuracy == record.accuracy


def test_a_prediction_says_what_is_compared():
    class TwoChannels(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(1, 2, 1)

        def forward(self, x):
            return self.layer(x).permute(0, 2, 3, 1)[:, :, :, None]

    def as_complex(output, batch):
        return torch.view_as_complex(output.contiguous())[..., 0], batch[1]

    model, target = TwoChannels(), torch.complex(X, Y)[:, 0]
    batches = [(X[:2], target[:2]), (X[2:], target[2:])]
    record = ft.capture(model, batches, inputs=0, prediction=as_complex)
    with torch.no_grad():
        expected = torch.view_as_complex(model(X).contiguous())[..., 0]
    assert dict(record.accuracy.stats) == numbers_of(expected, target)
    assert (record.target.shape, record.target.values_of) == ((5, 6, 6), "|z|")


def test_without_a_target_there_is_no_accuracy(model):
    record = ft.capture(model, [(X, Y)], inputs=0)
    assert (record.accuracy, record.target) == (None, None)


@pytest.mark.parametrize(
    ("batch", "options", "words"),
    [
        ((X, Y[:, 0]), {"target": 1}, ["(5, 1, 6, 6) float32", "(5, 6, 6) float32", "`prediction`"]),
        ((X, Y[:1]), {"target": 1}, ["(5, 1, 6, 6)", "(1, 1, 6, 6)"]),
        ((X, Y.cfloat()), {"target": 1}, ["float32", "complex64"]),
        ((X, Y.long()), {"target": 1}, ["int64 values"]),
        ((X, None), {"target": 1}, ["NoneType; expected one tensor", "0: (5, 1, 6, 6) float32"]),
        (
            (X, Y),
            {"target": 2},
            ["`target`: a batch has no part 2", "6) float32, 1: (5, 1, 6"],
        ),
        ((X, Y), {"inputs": "x", "target": 1}, ["`inputs`: a batch has no part 'x'"]),
        ({"a": X}, {"inputs": 0}, ["`inputs`: a batch has no part 0", "a: (5, 1, 6, 6) float32"]),
        (X, {"inputs": 0, "target": 1}, ["`inputs`: a batch has no part 0", "(5, 1, 6, 6) float32"]),
        ((X, {"y": Y}), {"inputs": None, "target": "1.y"}, ["`inputs` must say"]),
        ((X, Y), {"prediction": lambda o, b: (o, b[1][:, 0])}, ["prediction is (5, 1, 6, 6)", "(5, 6, 6)"]),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(model, batch, options, words):
    with pytest.raises(ft.InputError) as error:
        ft.capture(model, [batch], **{"inputs": 0, **options})
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"inputs": []}, "`inputs` is []; expected a position or key"),
        ({"inputs": 0.5}, "`inputs` is 0.5"),
        ({"inputs": 0, "target": [1]}, "`target` is [1]; expected a position or a key"),
        ({"inputs": 0, "target": True}, "`target` is True"),
        ({"inputs": 0, "prediction": lambda output: output}, "`prediction` raised TypeError"),
        ({"inputs": 0, "prediction": lambda output, batch: output}, "expected (prediction, target)"),
        ({"inputs": 0, "prediction": lambda output, batch: (output, 1)}, "expected two tensors"),
    ],
)
def test_a_choice_that_cannot_be_meant_is_refused(model, options, words):
    with pytest.raises(ft.OptionError) as error:
        ft.capture(model, [(X, Y)], **options)
    assert words in str(error.value)


def test_an_error_leaves_the_model_as_it_was(model, hooks_of):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ft.InputError):
        ft.capture(model.train(), [(X, Y[:1])], inputs=0, target=1)
    assert model.training and not any(hooks_of(model))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
