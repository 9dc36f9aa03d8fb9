"""What a capture records: one record per (path, call, item), in order, for whatever a forward returns."""

import dataclasses
from typing import NamedTuple

import jsonschema
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import fno_telemetry as ft
from fno_telemetry import report


class Pair(NamedTuple):
    amp: torch.Tensor
    phase: torch.Tensor


@dataclasses.dataclass
class Fields:
    speed: torch.Tensor
    nothing: torch.Tensor | None = None


class Returns(nn.Module):
    """Returns whatever `wrap` makes of a tensor."""

    def __init__(self, wrap):
        super().__init__()
        self.wrap = wrap

    def forward(self, x):
        return self.wrap(x)


class Through(nn.Module):
    """Calls `inner` and returns its own input, so that only `inner` returns something unusual."""

    def __init__(self, wrap):
        super().__init__()
        self.inner = Returns(wrap)

    def forward(self, x):
        self.inner(x)
        return x + 1


def keys(record):
    return [(module.name, module.call, module.item) for module in record.modules]


@pytest.mark.parametrize(
    ("wrap", "items"),
    [
        (lambda x: x, [None]),
        (lambda x: (x, 2 * x), ["0", "1"]),
        (lambda x: [x, None, x], ["0", "2"]),
        (lambda x: {"amp": x, "phase": x}, ["amp", "phase"]),
        (lambda x: Pair(x, x), ["amp", "phase"]),
        (lambda x: Fields(x), ["speed"]),
        (lambda x: {"levels": (x, Pair(x, x)), "rest": [Fields(x)]},
         ["levels.0", "levels.1.amp", "levels.1.phase", "rest.0.speed"]),
        (lambda x: None, []),
        (lambda x: (), []),
        (lambda x: "a string", []),
    ],
)  # fmt: skip
def test_every_tensor_in_what_a_module_returns_has_its_own_record(wrap, items):
    record = ft.capture(Through(wrap), torch.rand(3, 4))
    assert keys(record) == [("inner", 0, item) for item in items]
    assert record.errors == ()


def test_each_item_has_the_numbers_of_its_own_tensor():
    record = ft.capture(Through(lambda x: {"small": x, "large": (x + 10, x + 20)}), torch.zeros(3, 4))
    means = {
        item: record.module("inner", item=item).stats["mean"] for item in ("small", "large.0", "large.1")
    }
    assert means == {"small": 0.0, "large.0": 10.0, "large.1": 20.0}


@pytest.mark.parametrize(
    ("wrap", "name", "reason"),
    [
        (lambda x: (x * 4).long(), "inner", "int64 values are not measured"),
        (lambda x: (x, x > 0), "inner[1]", "bool values are not measured"),
        (lambda x: x.to_sparse(), "inner", "sparse"),
        (lambda x: 5, "inner", "returned int, which holds no tensor"),
        (lambda x: [], "inner", "returned list, which holds no tensor"),
    ],
)
def test_what_cannot_be_measured_is_skipped_with_a_reason(wrap, name, reason):
    record = ft.capture(Through(wrap), torch.rand(3, 4))
    assert [entry["name"] for entry in record.skipped] == [name]
    assert reason in record.skipped[0]["reason"]
    assert record.errors == ()


def test_a_module_called_several_times_has_a_record_for_each_call():
    class Repeats(nn.Module):
        def __init__(self):
            super().__init__()
            self.twice = Returns(lambda x: 2 * x)
            self.inner = nn.Sequential(nn.Identity())

        def forward(self, x):
            for _ in range(3):
                x = self.inner(self.twice(x))
            return x

    x = torch.ones(2, 3)
    record = ft.capture(Repeats(), [x, x])
    assert keys(record) == [(name, k, None) for k in range(3) for name in ("twice", "inner.0")]
    assert [record.module("twice", call).stats["mean"] for call in range(3)] == [2.0, 4.0, 8.0]
    assert record.module("twice", 2).shape == (4, 3)
    with pytest.raises(KeyError, match=r"'twice@3' .* recorded of this module: twice, twice@1, twice@2$"):
        record.module("twice", 3)


def test_a_shared_module_is_recorded_under_the_name_it_was_called_by():
    class Half(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.layer(x)

    shared = nn.Tanh()
    model = nn.Sequential(Half(shared), Half(shared), Half(shared))
    record = ft.capture(model, torch.rand(2, 3))
    # Containers that are no block are not measured.
    assert keys(record) == [("0.layer", 0, None), ("1.layer", 0, None), ("2.layer", 0, None)]
    assert record.not_fired == ()


def test_a_module_registered_twice_in_one_place_has_calls_of_one_name():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Tanh()
            self.second = self.first

        def forward(self, x):
            return self.second(self.first(x))

    record = ft.capture(Twice(), torch.rand(2, 3))
    assert keys(record) == [("first", 0, None), ("first", 1, None)]
    assert record.not_fired == ()


@pytest.mark.parametrize("size", [1, 8])
def test_batches_of_one_and_of_eight_give_the_same_keys(size, small_network):
    record = ft.capture(small_network(), torch.rand(size, 1, 12, 10))
    whole = ft.capture(small_network(), torch.rand(5, 1, 12, 10))
    assert keys(record) == keys(whole)
    assert all(module.item is None for module in record.modules)
    assert list(record.layers) == list(whole.layers)


def test_activation_functions_are_recorded_under_the_module_that_calls_them():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            x = functional.gelu(self.layer(x))
            x = torch.sigmoid(functional.gelu(x).tanh())
            return functional.relu(x, inplace=True)

    model = nn.Sequential(Functional(), nn.GELU(), nn.TransformerEncoderLayer(4, 1, 8))
    record = ft.capture(model, torch.rand(2, 3, 4))
    called = [key for key in keys(record) if "#" in key[0]]
    assert called == [
        ("0#gelu", 0, None),
        ("0#gelu", 1, None),
        ("0#tanh", 0, None),
        ("0#sigmoid", 0, None),
        ("0#relu", 0, None),
    ]
    gelu = record.module("0#gelu")
    assert (gelu.role, gelu.class_name, gelu.parent) == ("activation", "gelu", "0")
    expected = functional.gelu(model[0].layer(torch.zeros(1, 4))).detach().double().mean()
    again = ft.capture(model, torch.zeros(2, 3, 4)).module("0#gelu")
    assert again.stats["mean"] == pytest.approx(float(expected), rel=1e-6)


def test_modules_that_were_never_called_are_named():
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.used = nn.Linear(4, 4)
            self.spare = nn.Linear(4, 4)
            self.bypassed = nn.Sequential(Through(lambda x: x))
            self.parts = nn.ModuleList([nn.GELU()])

        def forward(self, x):
            return self.bypassed[0].forward(self.used(x))

    record = ft.capture(Spare(), torch.rand(2, 4))
    # The block was called by its forward method, so that only what is inside could be seen.
    assert [entry["name"] for entry in record.not_fired] == ["spare", "bypassed.0", "parts.0"]
    assert {entry["reason"] for entry in record.not_fired} == {"its forward was not called"}
    assert ("bypassed.0.inner", 0, None) in keys(record)


def test_records_stand_in_the_order_in_which_modules_finished(small_network, images):
    model = small_network()
    finished = []
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: finished.append(name))
    record = ft.capture(model, images)
    measured = [module.name for module in record.modules]
    assert [name for name in finished[: len(finished) // 2] if name in measured] == measured
    assert [module.order for module in record.modules] == list(range(len(measured)))


def test_parents_are_the_modules_that_called(small_network, images):
    record = ft.capture(small_network(), images)
    parents = {module.name: module.parent for module in record.modules}
    assert parents["lifter"] is None
    assert parents["fno_blocks.0"] is None
    assert parents["lifter.conv1"] == "lifter"
    assert parents["fno_blocks.1.spectral"] == "fno_blocks.1"
    assert parents["cnn_refiner.0.1"] == "cnn_refiner.0"


def test_input_and_outputs_are_recorded_whatever_is_selected(small_network, images):
    model = small_network(output_mode="amp_phase")
    record = ft.capture(model, images, layers=["lifter"])
    assert [module.name for module in record.modules] == ["lifter"]
    with torch.no_grad():
        amplitude, phase = model.eval()(images)
    assert (record.input.shape, record.output.shape) == ((8, 1, 12, 10), (8, 1, 12, 10))
    assert record.output == record.outputs[0]
    assert [output.item for output in record.outputs] == ["0", "1"]
    for output, tensor in zip(record.outputs, (amplitude, phase), strict=True):
        assert output.stats["mean"] == pytest.approx(float(tensor.double().mean()), rel=1e-6)
        assert output.spatial_axes == (2, 3)
    assert record.input.stats["mean"] == pytest.approx(float(images.double().mean()), rel=1e-6)


def test_a_model_without_modules_below_it_has_an_input_and_an_output():
    model = nn.Linear(3, 2)
    x = torch.rand(4, 3)
    record = ft.capture(model, x)
    assert (record.modules, record.not_fired) == ((), ())
    assert record.output.shape == (4, 2)
    assert record.output.stats["mean"] == pytest.approx(float(model(x).detach().double().mean()), rel=1e-6)


def test_the_summary_says_what_really_ran(small_network, images):
    summary = ft.capture(small_network(), [images[:5], images[5:]]).summary
    assert {key: summary[key] for key in ("n_samples", "batch_size", "device", "dtype")} == {
        "n_samples": 8,
        "batch_size": 5,
        "device": "cpu",
        "dtype": "float32",
    }
    model = small_network()
    assert summary["n_modules"] == len(list(model.modules()))
    assert summary["n_parameters"] == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("step", [0, 100, np.int64(7), np.array(7), torch.tensor(7)])
def test_a_step_is_in_the_summary_as_a_plain_integer(step):
    record = ft.capture(nn.Conv2d(1, 2, 1), torch.rand(2, 1, 4, 4), step=step, summary={"run": "a"})
    assert {**record.summary}.items() >= {
        "checkpoint_step": int(step),
        "step_kind": "step",
        "run": "a",
    }.items()
    assert type(record.step) is int
    assert ft.capture(nn.Conv2d(1, 2, 1), torch.rand(2, 1, 4, 4)).step is None


@pytest.mark.parametrize(
    "step",
    [-1, True, 3.0, "3", np.bool_(True), np.float32(3), np.array([3]), torch.tensor(True), torch.tensor(3.0),
     torch.tensor([3]), torch.tensor(3, device="meta")],
)  # fmt: skip
def test_what_is_no_step_is_refused_before_the_model_runs(step):
    def forward(_):
        raise AssertionError("the model was run")

    with pytest.raises(ft.OptionError, match=r"^`step` is .*: expected an integer, 0 or more$"):
        ft.capture(nn.Identity(), torch.rand(2, 1), step=step, forward=forward)


def test_a_step_and_the_summary_must_agree():
    model, x = nn.Identity(), torch.rand(2, 3)
    with pytest.raises(
        ft.OptionError, match=r"`step` is 3, but `summary` has the checkpoint_step 4: leave out"
    ):
        ft.capture(model, x, step=3, summary={"checkpoint_step": 4})
    assert ft.capture(model, x, step=3, summary={"checkpoint_step": 3}).spelled_step == "step 3"
    assert ft.capture(model, x, step=3, summary={"checkpoint_step": None}).step == 3
    assert ft.capture(model, x, step=3, summary={"step_kind": "epoch"}).spelled_step == "epoch 3"


def test_a_record_is_a_valid_report_and_reads_back_equal(small_network, images, tmp_path):
    images[2, 0, 3, 3] = float("nan")
    record = ft.capture(small_network("stable_hybrid"), [images[:3], images[3:]])
    document = report.as_document(record)
    jsonschema.validate(document, report.json_schema())
    path = tmp_path / "report.json"
    path.write_text(report.dumps(document), encoding="utf-8")
    assert ft.load_report(path) == record
    assert record.input.stats["nan_count"] == 1


def test_values_agree_with_numpy(small_network, images):
    model = small_network()
    seen = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda m, a, y, name=name: seen.__setitem__(name, y.double().numpy()))
    record = ft.capture(model, images)
    for module in record.modules:
        x, stats = seen[module.name], module.stats
        rms = np.sqrt((x**2).mean())
        assert stats["count"] == x.size
        assert stats["rms"] == pytest.approx(rms, rel=1e-6)
        assert stats["mean"] == pytest.approx(x.mean(), abs=1e-6 * rms)
        assert stats["std"] == pytest.approx(x.std(), rel=1e-5)
        assert (stats["min"], stats["max"]) == (x.min(), x.max())
        variation = np.sqrt(x.var(0).mean() / (x**2).mean())
        assert stats["sample_variation"] == pytest.approx(variation, rel=1e-5)
        given = np.sqrt(images.double().numpy().var(0).mean() / (images.double().numpy() ** 2).mean())
        assert stats["relative_sample_variation"] == pytest.approx(variation / given, rel=1e-5)
