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
from fno_telemetry.measuring.batch_devices import follow_model

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


def compared(record):
    """Those of the record."""
    return {name: record.accuracy.stats[name] for name in ("relative_l2", "output_to_target_rms")}


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
    assert compared(record) == numbers_of(model(X), Y)
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
        assert compared(record) == numbers_of(model(X.clone(), mask=MASK), Y)
    assert [entered.item for entered in record.inputs] == ["x", "mask"]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_an_ordinary_loader_gives_the_accuracy_of_all_samples(model, size):
    loader = DataLoader(TensorDataset(X, Y), batch_size=size)
    record = ft.capture(model, loader, inputs=0, target=1, loss=lambda out, batch: (out - batch[1]).norm())
    assert compared(record) == numbers_of(model(X), Y)
    assert record.summary["n_samples"] == 5 and record.target.shape == (5, 1, 6, 6)
    assert record.summary["loss"] > 0


@pytest.mark.parametrize("inputs", [["x", "mask"], ["mask", "x"]])
def test_keys_that_the_forward_has_are_passed_by_name(inputs):
    model, batch = Masked(), {"x": X.clone(), "mask": MASK, "y": Y, "index": torch.arange(5)}
    record = ft.capture(model, [batch], inputs=inputs, target="y")
    with torch.no_grad():
        assert compared(record) == numbers_of(model(X.clone(), mask=MASK), Y)
    assert [entered.item for entered in record.inputs] == inputs


def test_other_parts_are_passed_by_position_in_the_order_given():
    class Difference(nn.Module):
        def forward(self, *fields):
            return fields[0] - fields[1]

    record = ft.capture(Difference(), [(X, Y, MASK)], inputs=[2, 0], target=1)
    assert compared(record) == numbers_of(MASK - X, Y)
    assert [entered.item for entered in record.inputs] == ["2", "0"]


def test_a_forward_of_the_users_gets_the_chosen_parts(model):
    record = ft.capture(
        model, [(X.double(), Y)], inputs=0, target=1, forward=lambda x: model(x.float()), loss=None
    )
    assert compared(record) == numbers_of(model(X), Y)
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
    assert compared(record) == numbers_of(expected, target)
    assert (record.target.shape, record.target.values_of) == ((5, 6, 6), "|z|")


def test_without_a_target_there_is_no_accuracy(model):
    record = ft.capture(model, [(X, Y)], inputs=0)
    assert (record.accuracy, record.target) == (None, None)


@pytest.mark.parametrize(
    ("batch", "options", "words"),
    [
        (
            (X, Y[:, 0]),
            {"target": 1},
            ["(5, 1, 6, 6) float32", "(5, 6, 6) float32", "`prediction`", "(output.squeeze(1), target)"],
        ),
        ((X, Y[:, 0], Y), {"target": 1}, ["Part 2 of the batch has the shape", "`target=2`"]),
        ((X, Y[:1]), {"target": 1}, ["(5, 1, 6, 6)", "(1, 1, 6, 6)"]),
        ((X, Y.cfloat()), {"target": 1}, ["float32", "complex64"]),
        ((X, Y.long()), {"target": 1}, ["int64 values", "such as (output, target.float())"]),
        ((X, None), {"target": 1}, ["NoneType; one tensor was expected", "0: (5, 1, 6, 6) float32"]),
        (
            (X, Y),
            {"target": 2},
            ["`target` 2: a batch has no such part", "6) float32, 1: (5, 1, 6"],
        ),
        ((X, Y), {"inputs": "x", "target": 1}, ["`inputs` 'x': a batch has no such part"]),
        ({"a": X}, {"inputs": 0}, ["`inputs` 0: a batch has no such part", "a: (5, 1, 6, 6) float32"]),
        (
            X,
            {"inputs": 0, "target": 1},
            ["a batch is one tensor, (5, 1, 6, 6) float32", "is a tuple"],
        ),
        ((X, {"y": Y}), {"inputs": None, "target": "1.y"}, ["say by `inputs` what goes"]),
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
        ({"inputs": 0, "target": 1.5}, "`target` is 1.5; expected a position or key"),
        ({"inputs": 0, "target": [0, 1]}, "`target` has several parts, 0, 1; `prediction` is a function"),
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


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ([X, Y], ["`inputs=0, target=1` would give part 0 to the model", "A batch is a list of 0: (5"]),
        ({"y": Y, "image": X}, ["`inputs='image', target='y'`", "image: (5, 1, 6, 6) float32"]),
        ((X, None), ["forward=lambda batch: model(batch[0])"]),
    ],
)
def test_a_batch_that_the_forward_does_not_take_is_answered_with_a_choice_that_fits(model, batch, words):
    for run in (ft.capture, ft.plan):
        with pytest.raises(TypeError) as error:
            run(model, [batch])
        taken, advice = error.value.__notes__
        assert taken.startswith("fno-telemetry: a batch was taken to be 2 ")
        assert all(word in advice for word in words), advice


def test_a_choice_of_inputs_that_the_forward_does_not_take_shows_the_batch(model):
    with pytest.raises(RuntimeError) as error:
        ft.capture(model, [(torch.arange(5.0), X, Y)], inputs=0, target=2)
    taken, advice = error.value.__notes__
    assert "one argument: (5,) float32" in taken
    assert "A batch is a tuple of 0: (5,) float32, 1: (5, 1, 6, 6) float32, 2: (5, 1, 6, 6)" in advice


def test_an_input_of_another_type_than_the_weights_is_told(model):
    with pytest.raises(RuntimeError) as error:
        ft.capture(model, [(X.double(), Y)], inputs=0, target=1)
    assert "The input is float64 and the weights are float32: convert it by x.to" in error.value.__notes__[1]


class OfX(nn.Module):
    """Ignores other keywords, as the networks of neuraloperator do."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x, output_shape=None, **kwargs):
        return self.layer(x)


class OfBoth(OfX):
    def forward(self, x, y):
        return self.layer(x + y)


def test_batches_of_x_and_y_are_recognised_and_the_record_says_so():
    model = OfX()
    record = ft.capture(model, [{"y": Y, "x": X}])
    assert compared(record) == numbers_of(model.layer(X), Y)
    [warning] = record.warnings
    assert "x goes into the model, and y is the target" in warning
    assert record.provenance["input"]["parts"] == {"inputs": ("x",), "target": ("y",)}
    chosen = ft.capture(model, [{"y": Y, "x": X}], inputs="x", target="y")
    assert (chosen.warnings, chosen.accuracy, chosen.modules) == ((), record.accuracy, record.modules)
    assert ft.plan(model, [{"x": X, "y": Y}]).model_map.modules == ft.map_model(model, X).modules


@pytest.mark.parametrize(
    ("model", "batch", "options"),
    [
        (OfBoth(), {"x": X, "y": Y}, {}),
        (OfX(), {"x": X, "y": Y, "mask": MASK}, {}),
        (OfX(), (X, Y), {"inputs": 0}),
    ],
)
def test_other_batches_are_not_recognised(model, batch, options):
    record = ft.capture(model, [batch], **options)
    assert (record.accuracy, record.warnings) == (None, ())


def test_with_a_forward_of_the_users_nothing_is_recognised():
    model = OfX()
    record = ft.capture(model, [{"x": X, "y": Y}], forward=lambda batch: model(batch["x"]))
    assert (record.accuracy, record.warnings) == (None, ())


def mean_square(output, batch):
    return (output - batch[1]).square().mean()


def mean_relative(output, batch):
    error = (output - batch[1]).flatten(1).norm(dim=1)
    return (error / batch[1].flatten(1).norm(dim=1)).mean()


@pytest.mark.parametrize(("name", "same"), [("mse", mean_square), ("relative_l2", mean_relative)])
@pytest.mark.parametrize("size", [2, 5])
def test_a_loss_by_name_is_that_of_its_definition_with_its_gradients(model, name, same, size):
    loader = DataLoader(TensorDataset(X, Y), batch_size=size)
    record = ft.capture(model, loader, inputs=0, target=1, loss=name)
    expected = ft.capture(model, loader, inputs=0, target=1, loss=same)
    assert record.summary["loss"] == pytest.approx(expected.summary["loss"], rel=1e-6)
    found, other = (each.module("0").stats for each in (record, expected))
    assert found["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-5) and found["grad_norm"] > 0


def test_a_loss_by_name_is_of_what_a_prediction_returns_also_of_complex_fields():
    target = torch.complex(X, Y)

    def as_complex(output, batch):
        return torch.complex(output, 2 * output), batch[1]

    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1))
    with torch.no_grad():
        error = np.abs(np.asarray(torch.complex(model(X), 2 * model(X)) - target)) ** 2
    size = np.abs(np.asarray(target)) ** 2
    relative = np.sqrt(error.sum((1, 2, 3)) / size.sum((1, 2, 3))).mean()
    for name, value in {"mse": error.mean(), "relative_l2": relative}.items():
        record = ft.capture(model, [(X, target)], inputs=0, prediction=as_complex, loss=name)
        assert record.summary["loss"] == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": "mae", "target": 1}, "`loss` 'mae' is not known"),
        ({"loss": "mse"}, "`loss` 'mse' compares the output with a target, and none is given"),
        ({"loss": "relative_l2", "target": 1}, "which is zero in 1 of 5 samples of a batch"),
        ({"loss": "mse", "target": 2}, "the target is (5,) float32"),
    ],
)
def test_a_loss_by_name_that_cannot_be_computed_is_refused(model, options, words):
    zero = Y.clone()
    zero[3] = 0
    with pytest.raises(ft.TelemetryError) as error:
        ft.capture(model, [(X, zero, torch.ones(5))], inputs=0, **options)
    assert words in str(error.value)


def test_batches_on_the_cpu_are_moved_to_the_device_of_the_model_and_no_others():
    meta = nn.Linear(2, 2, device="meta")
    [moved] = follow_model([(X, None, {"y": Y})], meta)
    assert (moved[0].device.type, moved[2]["y"].device.type) == ("meta", "meta")
    there = (X.to("meta"), X)
    [kept] = follow_model([there], meta)
    assert kept is there
    pair = (X, Y)
    for model in (nn.Linear(2, 2), nn.Identity(), nn.Sequential(meta, nn.Linear(2, 2))):
        assert [*follow_model([pair], model)] == [pair]


def test_batches_give_the_accuracy_of_all_samples_by_band_too(model):
    whole = ft.capture(model, [(X, Y)], inputs=0, target=1).accuracy
    split = ft.capture(model, [(X[:1], Y[:1]), (X[1:], Y[1:])], inputs=0, target=1).accuracy
    known = {name: value for name, value in whole.stats.items() if value is not None}
    assert {name: split.stats[name] for name in known} == pytest.approx(known, rel=1e-6)
    assert {name for name, value in split.stats.items() if value is not None} == known.keys()
    assert split.channels == pytest.approx(whole.channels, rel=1e-6)
    for name in ("target", "output", "error"):
        row = getattr(whole.bands, name)
        assert getattr(split.bands, name) == pytest.approx(row, abs=1e-6 * sum(row))
    with torch.no_grad():
        error = (model(X).double() - Y.double()).square().sum()
    assert sum(whole.bands.error) == pytest.approx(float(error), rel=1e-5)
    assert (whole.bands.sizes, len(whole.bands.band_edges)) == ((6, 6), 24)


def test_what_a_prediction_makes_of_the_output_has_its_spatial_axes():
    class Pairs(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(1, 2, 3, padding=1)

        def forward(self, x):
            return self.layer(x).permute(0, 2, 3, 1)[:, :, :, None]  # (B, H, W, C, 2)

    def as_complex(output, batch):
        return torch.view_as_complex(output.contiguous()), batch[1]

    record = ft.capture(
        Pairs(), [(X, torch.complex(X, Y).permute(0, 2, 3, 1))], inputs=0, prediction=as_complex
    )
    assert record.target.spatial_axes == (1, 2) and record.target.spectrum is not None
    assert record.accuracy.bands.sizes == (6, 6) and len(record.accuracy.channels) == 1
    assert record.accuracy.stats["effective_resolution"] is not None
