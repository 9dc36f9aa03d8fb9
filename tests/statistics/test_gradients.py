"""Gradients of a loss, against `backward()` on a copy of the network and NumPy in float64."""

import copy
import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import fno_telemetry as ft
from fno_telemetry.statistics.contract import Empty, Known, Undefined, summarize_state
from fno_telemetry.statistics.gradients import BranchGradientRatio, OutputGradientSize
from fno_telemetry.statistics.subjects import (
    BranchGradients,
    OutputGradient,
    ParameterGradient,
    ParameterGradients,
)

OF_PARAMETERS = ("grad_norm", "grad_abs_mean", "grad_to_weight", "grad_nonfinite_count")
ALL = {*OF_PARAMETERS, "output_grad_rms"}
NETWORKS = ("fno", "hybrid", "stable_hybrid", "neuralop FNO", "neuralop TFNO")


def mean_square(output, batch):
    """A mean over samples of every tensor that came out, against something that depends on the input."""
    outputs = [output] if isinstance(output, torch.Tensor) else output
    target = batch.mean((1, 2, 3))
    return sum((t - target.reshape(-1, *[1] * (t.ndim - 1))).square().mean() for t in outputs)


@pytest.fixture
def network(small_network):
    def build(name):
        if not name.startswith("neuralop"):
            return small_network(name)
        with warnings.catch_warnings():
            # What it imports warns about its own old syntax, out of our reach.
            warnings.simplefilter("ignore")
            models = pytest.importorskip("neuralop.models", reason="neuraloperator is not installed")
        sizes = {"hidden_channels": 8, "n_layers": 2, "in_channels": 1, "out_channels": 1}
        if name == "neuralop FNO":
            return models.FNO(n_modes=(6, 6), **sizes)
        return models.TFNO(n_modes=(6, 6), factorization="tucker", rank=0.5, **sizes)

    return build


def double(tensor):
    return tensor.detach().to(torch.complex128 if tensor.is_complex() else torch.float64).numpy()


def norm(arrays):
    return math.sqrt(sum(float((abs(array) ** 2).sum()) for array in arrays))


def backward(model, batch, loss):
    """Differentiate as a training step does; return the loss, gradients by name, those of outputs by call."""
    model = copy.deepcopy(model).eval()
    outputs, counts = {}, {}

    def keep(name):
        def hook(module, args, output):
            number = counts[name] = counts.get(name, -1) + 1
            if isinstance(output, torch.Tensor) and output.requires_grad:
                output.retain_grad()
                outputs[name, number] = output

        return hook

    for name, module in model.named_modules():
        module.register_forward_hook(keep(name))
    value = loss(model(batch), batch)
    value.backward()
    zeros = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    found = {name: zeros[name] if p.grad is None else p.grad for name, p in model.named_parameters()}
    return float(value.detach()), found, {call: output.grad for call, output in outputs.items()}


def own(name, names, modules):
    """Names of the parameters below `name` with no other recorded module in between."""
    below = [one for one in modules if one.startswith(f"{name}.")]
    return [
        parameter
        for parameter in names
        if parameter.startswith(f"{name}.") and not any(parameter.startswith(f"{b}.") for b in below)
    ]


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_those_of_a_training_step(network, images, name):
    model = network(name)
    loss, expected, of_outputs = backward(model, images, mean_square)
    record = ft.capture(model, images, loss=mean_square)
    assert (record.errors, record.warnings) == ((), ())
    assert record.summary["loss"] == pytest.approx(loss, rel=1e-6)
    weights = {name: double(p) for name, p in model.named_parameters()}
    modules = {module.name for module in record.modules} | set(dict(model.named_modules()))
    modules = {m for m in modules if not m.endswith((".weight", ".factors"))}  # of a factorised tensor
    seen = set()
    for module in record.modules:
        names = own(module.name, expected, modules)
        if names and module.call == 0:
            seen |= set(names)
            arrays = [double(expected[parameter]) for parameter in names]
            stats = {key: module.stats[key] for key in OF_PARAMETERS}
            size = sum(array.size for array in arrays)
            assert stats == pytest.approx(
                {
                    "grad_norm": norm(arrays),
                    "grad_abs_mean": sum(abs(array).sum() for array in arrays) / size,
                    "grad_to_weight": norm(arrays) / norm([weights[parameter] for parameter in names]),
                    "grad_nonfinite_count": 0,
                },
                rel=1e-5,
            ), module.name
        else:
            assert not {*module.stats} & {*OF_PARAMETERS}
        gradient = of_outputs.get((module.name, module.call))
        if gradient is not None:
            rms = np.sqrt((abs(double(gradient)) ** 2).mean())
            assert module.stats["output_grad_rms"] == pytest.approx(rms, rel=1e-5), module.name
        elif "#" in module.name:
            assert module.stats["output_grad_rms"] > 0
        else:
            assert "does not require a gradient" in module.reasons["output_grad_rms"]
    # Of the whole network's own parameters nothing is recorded, because it is no layer.
    assert {parameter for parameter in expected if "." in parameter} == seen


@pytest.mark.parametrize("name", NETWORKS)
def test_branches_are_compared_by_the_gradients_of_all_their_parameters(network, images, name):
    model = network(name)
    _, expected, _ = backward(model, images, mean_square)
    record = ft.capture(model, images, loss=mean_square)
    assert record.blocks
    for block in record.blocks:
        spectral, local = (
            norm(
                double(gradient)
                for parameter, gradient in expected.items()
                if any(parameter.startswith(f"{path}.") for path in paths)
            )
            for paths in (block.spectral, block.local)
        )
        assert block.stats["spectral_local_gradient_ratio"] == pytest.approx(spectral / local, rel=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_split_into_batches_changes_nothing(network, images, name):
    model = network(name)
    whole, *others = (ft.capture(model, iter(images.split(size)), loss=mean_square) for size in (8, 3, 1))
    for record in others:
        assert record.summary["loss"] == pytest.approx(whole.summary["loss"], rel=1e-6)
        for one, other in zip(record.modules, whole.modules, strict=True):
            keys = ALL & {*other.stats}
            assert "output_grad_rms" in keys
            assert ALL & {*one.stats} == keys
            for key in keys:
                if other.stats[key] is None:
                    assert (one.stats[key], one.reasons[key]) == (None, other.reasons[key])
                else:
                    assert one.stats[key] == pytest.approx(other.stats[key], rel=1e-5), (one.name, key)
        for one, other in zip(record.blocks, whole.blocks, strict=True):
            key = "spectral_local_gradient_ratio"
            assert one.stats[key] == pytest.approx(other.stats[key], rel=1e-5)


def test_without_a_loss_there_are_no_gradients(network, images):
    model = network("fno")
    record = ft.capture(model, images)
    assert not any("grad" in key for module in record.modules for key in module.stats)
    assert not any("grad" in key for block in record.blocks for key in block.stats)
    assert "loss" not in record.summary
    assert "gradient_seconds" not in record.provenance["overhead"]


def test_with_a_loss_everything_else_is_as_without(network, images):
    model = network("hybrid")
    plain, more = (ft.capture(model, list(images.split(3)), loss=loss) for loss in (None, mean_square))
    for one, other in zip((*plain.modules, *plain.blocks), (*more.modules, *more.blocks), strict=True):
        assert dict(one.stats) == {key: v for key, v in other.stats.items() if "grad" not in key}
        assert dict(one.reasons) == {key: v for key, v in other.reasons.items() if "grad" not in key}
    assert plain.layers == more.layers
    assert more.provenance["overhead"]["gradient_seconds"] > 0


class Several(nn.Module):
    """Parameters of every kind: frozen, unused, complex, in half precision, parametrised, in a list."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.Linear(4, 4)
        self.frozen.bias.requires_grad_(False)
        self.unused = nn.Linear(4, 4)
        self.complex = Phase()
        self.listed = Listed()
        self.narrow = nn.Linear(4, 4, dtype=torch.bfloat16)
        self.parametrised = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
        self.embedding = nn.Embedding(3, 4, sparse=True)

    def forward(self, x):
        self.unused(x)
        y = self.listed(self.complex(self.frozen(x))) + self.embedding(torch.tensor([0, 2, 2, 1]))[:, None]
        return self.parametrised(self.narrow(y.bfloat16()).float())


class Phase(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, dtype=torch.complex64))

    def forward(self, x):
        return (x * self.weight).abs()


class Listed(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = nn.ParameterList([torch.randn(4), torch.randn(4)])

    def forward(self, x):
        return x * self.weights[0] + self.weights[1]


def square(output, batch):
    return output.square().mean()


def test_parameters_of_every_kind_are_measured_or_have_a_reason():
    model, batch = Several(), torch.rand(4, 4, 4)
    record = ft.capture(model, batch, loss=square)
    _, expected, _ = backward(model, batch, square)
    assert record.errors == ()
    for name, tolerance in (("complex", 1e-6), ("listed", 1e-6), ("narrow", 1e-6), ("embedding", 1e-6)):
        arrays = [double(g.to_dense()) for key, g in expected.items() if key.startswith(f"{name}.")]
        stats = record.module(name).stats
        assert stats["grad_norm"] == pytest.approx(norm(arrays), rel=tolerance)
        assert stats["grad_norm"] > 0
        size = sum(array.size for array in arrays)
        assert stats["grad_abs_mean"] == pytest.approx(sum(abs(a).sum() for a in arrays) / size, rel=1e-6)
        assert stats["grad_to_weight"] == pytest.approx(stats["grad_norm"] / stats["weight_norm"], rel=1e-6)
    originals = [double(g) for key, g in expected.items() if key.startswith("parametrised.")]
    assert record.module("parametrised").stats["grad_norm"] == pytest.approx(norm(originals), rel=1e-6)
    frozen, unused = record.module("frozen"), record.module("unused")
    assert {frozen.stats[key] for key in OF_PARAMETERS} == {None}
    assert {frozen.reasons[key] for key in OF_PARAMETERS} == {
        "the parameter 'bias' is frozen: its requires_grad is False"
    }
    assert {unused.stats[key] for key in ALL} == {0}
    assert not {*unused.reasons} & ALL


def test_a_network_that_is_frozen_has_a_loss_and_reasons():
    model = nn.Sequential(nn.Linear(4, 4)).requires_grad_(False)
    record = ft.capture(model, torch.rand(3, 4), loss=square)
    assert record.summary["loss"] > 0
    assert record.warnings == ("no parameter requires a gradient, so the loss has no parameter gradients",)
    assert record.module("0").stats["grad_norm"] is None
    assert "does not require a gradient" in record.module("0").reasons["output_grad_rms"]


def test_gradients_that_are_not_finite_are_counted_and_null():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    model[0].weight.data[1] = math.inf
    record = ft.capture(model, torch.ones(4, 2), loss=lambda output, batch: output[:, 0].square().mean())
    _, expected, _ = backward(model, torch.ones(4, 2), lambda output, batch: output[:, 0].square().mean())
    assert (record.summary["loss"], record.warnings) == (None, ("the loss is not finite: inf",))
    for name in ("0", "1"):
        wrong = sum(int((~torch.isfinite(g)).sum()) for key, g in expected.items() if key.startswith(name))
        module = record.module(name)
        assert module.stats["grad_nonfinite_count"] == wrong > 0
        size = sum(g.numel() for key, g in expected.items() if key.startswith(name))
        for key in ("grad_norm", "grad_abs_mean", "grad_to_weight"):
            assert module.stats[key] is None
            assert module.reasons[key] == f"{wrong} of {size} elements of the gradient are not finite"
        assert module.stats["output_grad_rms"] is None
        assert module.reasons["output_grad_rms"] == "the gradient is not finite"


def test_tiny_and_huge_gradients_of_outputs_are_measured():
    model = nn.Sequential(nn.Linear(2, 2, dtype=torch.float64))
    for scale in (1e-200, 1e200):
        record = ft.capture(
            model, torch.ones(4, 2).double(), loss=lambda output, batch, by=scale: (output * by).mean()
        )
        assert record.module("0").stats["output_grad_rms"] == pytest.approx(scale / 8)
        assert record.module("0").stats["grad_norm"] == pytest.approx(scale * math.sqrt(6) / 2)


def test_zero_weights_have_a_gradient_and_no_ratio():
    model = nn.Sequential(nn.Linear(2, 2))
    nn.init.zeros_(model[0].weight)
    nn.init.zeros_(model[0].bias)
    record = ft.capture(model, torch.ones(4, 2), loss=lambda output, batch: output.mean())
    assert record.module("0").stats["grad_norm"] == pytest.approx(math.sqrt(6) / 2)
    assert record.module("0").reasons["grad_to_weight"] == "all parameters are zero"


class Block(nn.Module):
    """A spectral branch with parameters, beside what is given."""

    def __init__(self, local):
        super().__init__()
        self.spectral, self.local = Spectral(), local

    def forward(self, x):
        return self.spectral(x) + self.local(x)


class Spectral(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return torch.fft.irfft2(torch.fft.rfft2(x) * self.weight, s=x.shape[-2:])


@pytest.mark.parametrize(
    ("local", "reason"),
    [
        (nn.InstanceNorm2d(1), "the local branch has no parameters"),
        (nn.Conv2d(1, 1, 1).requires_grad_(False), "the local branch: the parameter 'weight' is frozen"),
    ],
)
def test_branches_that_cannot_be_compared_have_a_reason(images, local, reason):
    record = ft.capture(nn.Sequential(Block(local)), images, loss=square)
    assert record.blocks[0].stats["spectral_local_gradient_ratio"] is None
    assert reason in record.blocks[0].reasons["spectral_local_gradient_ratio"]


def test_a_zero_gradient_of_the_local_branch_is_no_denominator():
    some = ParameterGradients((ParameterGradient(torch.ones(2), torch.ones(2)),))
    none = ParameterGradients((ParameterGradient(torch.ones(2), None),))
    ratio = BranchGradientRatio()
    summary = summarize_state(ratio, ratio.measure(BranchGradients(some, none)))
    assert summary.stats == {"spectral_local_gradient_ratio": None}
    assert "zero" in summary.reasons["spectral_local_gradient_ratio"]
    summary = summarize_state(ratio, ratio.measure(BranchGradients(none, some)))
    assert summary.stats == {"spectral_local_gradient_ratio": 0}


class Steady(nn.Module):
    """Makes a tensor without samples, as positional embeddings do."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(5, 4))

    def forward(self):
        return self.weight * 2


class Positioned(nn.Module):
    def __init__(self):
        super().__init__()
        self.position = Steady()

    def forward(self, x):
        return x @ self.position().T


def test_an_output_without_samples_is_measured_in_one_batch_and_not_over_several():
    batch = torch.rand(4, 4)
    one = ft.capture(Positioned(), batch, loss=square).module("position")
    _, _, outputs = backward(Positioned(), batch, square)
    expected = np.sqrt((double(outputs["position", 0]) ** 2).mean())
    assert one.stats["output_grad_rms"] == pytest.approx(expected, rel=1e-6)
    several = ft.capture(Positioned(), list(batch.split(2)), loss=square).module("position")
    assert several.stats["output_grad_rms"] is None
    assert "sample axis" in several.reasons["output_grad_rms"]
    assert several.stats["grad_norm"] == pytest.approx(one.stats["grad_norm"], rel=1e-6)


def test_an_output_without_elements_has_a_reason():
    size = OutputGradientSize()
    state = size.measure(OutputGradient(None, (0, 3), 2, torch.device("cpu")))
    summary = summarize_state(size, state, Known(samples=2))
    assert (summary.stats, summary.reasons) == (
        {"output_grad_rms": None},
        {"output_grad_rms": "the tensor has no elements"},
    )
    assert isinstance(state, Empty)
    assert summarize_state(size, Undefined("because")).reasons == {"output_grad_rms": "because"}
