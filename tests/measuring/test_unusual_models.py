"""Models that run in unusual ways are measured rightly, or what could not be measured is named."""

import threading
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

import fno_telemetry as ft
from fno_telemetry.architectures.layers import PtychoBlock, SpectralConvolution


class Runs(nn.Module):
    """Runs `body(self, x)` with `part` as its only child."""

    def __init__(self, body, part):
        super().__init__()
        self.body, self.part = body, part

    def forward(self, x):
        return self.body(self, x)


@pytest.fixture
def fields():
    return torch.rand(3, 4, 8, 8)


def names(entries):
    return [entry["name"] for entry in entries]


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_parts_are_measured_once(reentrant, fields):
    model = Runs(lambda self, x: checkpoint(self.part, x, use_reentrant=reentrant), PtychoBlock(4, 3))
    record = ft.capture(model, fields)
    expected = ft.capture(Runs(lambda self, x: self.part(x), model.part), fields)
    assert (record.modules, record.blocks) == (expected.modules, expected.blocks)


def test_what_another_thread_runs_is_named_as_not_fired(fields):
    def elsewhere(self, x):
        found = []
        thread = threading.Thread(target=lambda: found.append(self.part(x)))
        thread.start()
        thread.join()
        return found[0]

    record = ft.capture(Runs(elsewhere, nn.Conv2d(4, 4, 1)), fields)
    assert (record.modules, names(record.not_fired)) == ((), ["part"])


def test_scripted_parts_are_named_and_a_scripted_model_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(nn.Sequential(nn.Linear(4, 4)))
        traced = torch.jit.trace(nn.Linear(4, 4), torch.rand(2, 4))
        frozen = torch.jit.freeze(torch.jit.script(nn.Sequential(nn.Linear(4, 4)).eval()))
    for part, inside in ((scripted, ["0.0"]), (traced, []), (frozen, [])):
        record = ft.capture(nn.Sequential(part, nn.Linear(4, 4)), torch.rand(3, 4))
        assert [module.name for module in record.modules] == ["1"]
        assert names(record.not_fired) == ["0", *inside]
        assert {entry["reason"] for entry in record.not_fired} == {"TorchScript runs without hooks"}
        assert hasattr(part, "training") == (part is not frozen)
        with pytest.raises(ft.ModelError, match="capture the model that it was made from"):
            ft.capture(part, torch.rand(3, 4))


def test_a_part_that_the_first_forward_makes_is_recorded_in_eval_mode_and_left_in_training_mode(fields):
    class MadeLate(nn.Module):
        def __init__(self):
            super().__init__()
            self.lifting = nn.Conv2d(4, 4, 1)

        def forward(self, x):
            x = self.lifting(x)
            if not hasattr(self, "block"):
                self.block, self.dropout = PtychoBlock(x.shape[1], 3), nn.Dropout(0.5)
            return self.dropout(self.block(x))

    model = MadeLate()
    state = torch.get_rng_state()
    record = ft.capture(model, fields)
    assert [block.name for block in record.blocks] == ["block"]
    own = {"input_rms": None, "effective_rank": None}
    dropout, block = (dict(record.module(name).stats) | own for name in ("dropout", "block"))
    assert dropout == block
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)
    again = ft.capture(model, fields)
    assert (record.modules, record.blocks, record.not_fired) == (again.modules, again.blocks, ())


def test_an_exported_program_is_refused_with_what_to_capture_instead():
    x = torch.rand(3, 4)
    program = torch.export.export(nn.Sequential(nn.Linear(4, 4)), (x,)).module()
    for model in (program, nn.Sequential(program)):
        with pytest.raises(ft.ModelError, match="Capture the model that it was exported from"):
            ft.capture(model, x)
        with pytest.raises(ft.ModelError, match="Capture the model that it was exported from"):
            ft.map_model(model, x)
        assert model.training


def test_what_runs_inside_vmap_is_named_as_skipped(fields):
    model = Runs(lambda self, x: torch.func.vmap(self.part)(x), nn.Linear(8, 8))
    record = ft.capture(model, fields)
    assert (record.modules, names(record.skipped), record.errors) == ((), ["part"], ())
    assert "capture the model without vmap" in record.skipped[0]["reason"]
    assert record.output.shape == (3, 4, 8, 8)


def test_a_model_that_differentiates_inside_its_forward_still_can():
    def derivative(self, x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self.part(x).square().sum(), x)[0]

    model, x = Runs(derivative, nn.Linear(4, 2)), torch.rand(3, 4)
    outputs = []
    record = ft.capture(model, x, forward=lambda batch: outputs.append(model(batch)))
    assert torch.equal(outputs[-1], model(x))
    assert record.output.stats["rms"] == pytest.approx(float(model(x).square().mean().sqrt()), rel=1e-5)
    assert record.errors == ()


def test_inputs_that_require_gradients_still_do():
    model = Runs(lambda self, x: self.part(x), nn.Linear(4, 2))
    seen = []
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0].requires_grad))
    ft.capture(model, [(torch.rand(3, 4, requires_grad=True),)])
    assert seen == [True, True]


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_a_parametrized_layer_is_a_leaf_and_its_weights_are_no_activation(wrap):
    model = nn.Sequential(wrap(nn.Linear(4, 3)), nn.Tanh())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    record = ft.capture(model.train(), torch.rand(3, 4))
    assert [(module.name, module.shape) for module in record.modules] == [("0", (3, 3)), ("1", (3, 3))]
    assert record.not_fired == ()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_error_that_the_model_answers_for_leaves_the_rest_measured(fields):
    class Fails(nn.Module):
        def forward(self, x):
            raise ValueError("answered for")

    class Answers(nn.Module):
        def __init__(self):
            super().__init__()
            self.fails, self.block = Fails(), PtychoBlock(4, 3)

        def forward(self, x):
            try:
                return self.fails(x)
            except ValueError:
                return self.block(x)

    model = Answers()
    record = ft.capture(model, fields)
    alone = ft.capture(Runs(lambda self, x: self.part(x), model.block), fields)
    assert [module.name for module in record.modules][-1] == "block"
    assert {**record.blocks[0].stats} == {**alone.blocks[0].stats}
    assert (record.module("block").parent, record.module("block.spectral").parent) == (None, "block")


def test_a_spectral_layer_that_overwrites_its_input_has_no_truncated_fraction(fields):
    class Overwrites(SpectralConvolution):
        def forward(self, x):
            y = super().forward(x)
            x.zero_()
            return y

    record = ft.capture(nn.Sequential(nn.Identity(), Overwrites(4, 4, 3)), fields.clone())
    spectral = record.module("1")
    assert spectral.role == "spectral"
    assert spectral.stats["truncated_energy_fraction"] is None
    assert "was overwritten" in spectral.reasons["truncated_energy_fraction"]


def test_recurrent_and_attention_layers_have_a_record_for_each_item():
    recurrent = ft.capture(nn.Sequential(nn.LSTM(4, 5, batch_first=True)), torch.rand(3, 6, 4))
    assert [(m.item, m.shape) for m in recurrent.modules] == [
        ("0", (3, 6, 5)),
        ("1.0", (1, 3, 5)),
        ("1.1", (1, 3, 5)),
    ]
    model = nn.Sequential(nn.TransformerEncoderLayer(4, 1, 8, batch_first=True))
    record = ft.capture(model, torch.rand(3, 6, 4))
    assert {"0.linear1", "0.norm2", "0.self_attn"} <= {module.name for module in record.modules}
    assert record.errors == ()


@pytest.mark.parametrize("shape", [(0, 4), (1, 4)])
def test_empty_and_single_samples_are_measured_without_an_error(shape):
    record = ft.capture(nn.Sequential(nn.Linear(4, 4)), torch.rand(shape))
    assert record.module("0").stats["count"] == shape[0] * 4
    assert record.module("0").stats["sample_variation"] is None
    assert record.module("0").reasons["sample_variation"]
    assert record.errors == ()


def test_a_model_that_fails_on_one_sample_is_observed_on_the_whole_batch(fields):
    class WholeBatches(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = PtychoBlock(4, 3)

        def forward(self, x):
            if len(x) != 3:
                raise ValueError("three samples were expected")
            return self.block(x)

    record = ft.capture(WholeBatches(), fields)
    assert [block.name for block in record.blocks] == ["block"]


@pytest.mark.parametrize(
    "write",
    [
        lambda x: x.mul_(2),
        lambda x: x.data.mul_(2),
        lambda x: x.view(-1).data.mul_(2),
        lambda x: x.__setitem__(slice(None), x * 2),
        lambda x: torch.mul(x, 2, out=x),
        lambda x: nn.functional.threshold(x.data, -1, 0, inplace=True).add_(x.data),
    ],
    ids=["in place", "data", "view", "setitem", "out", "inplace"],
)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_each_module_is_measured_as_its_output_was_then(write, mode):
    class Writes(nn.Module):
        def forward(self, x):
            with torch.no_grad():
                write(x)
            return x

    model = nn.Sequential(nn.Identity(), Writes(), nn.Identity(), Writes(), nn.ReLU(inplace=True))
    with mode():
        record = ft.capture(model, torch.ones(2, 3))
    assert [module.stats["mean"] for module in record.modules] == [1.0, 2.0, 2.0, 4.0, 4.0]
    assert (record.input.stats["mean"], record.output.stats["mean"]) == (1.0, 4.0)
    assert record.errors == ()


class Shapeless(torch.Tensor):
    """A class of tensors that does not tell its shape."""

    @property
    def shape(self):
        raise NotImplementedError("no shape")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
@pytest.mark.parametrize(
    "make",
    [
        lambda x: torch.nested.nested_tensor([x[0], x[1, :, :2]], layout=torch.strided),
        lambda x: torch.nested.nested_tensor([x[0, 0], x[1, 0, :2]], layout=torch.jagged),
        lambda x: x[0, 0].to_sparse_csr(),
        lambda x: x.to("meta"),
        lambda x: x.as_subclass(Shapeless),
    ],
    ids=["strided nested", "jagged nested", "sparse", "meta", "without shape"],
)
@pytest.mark.parametrize("loss", [None, lambda output, batch: output.mean()])
def test_one_tensor_that_cannot_be_measured_costs_only_its_own_module(make, loss, fields):
    class Odd(nn.Module):
        def forward(self, x):
            return make(x)

    class Takes(nn.Module):
        """Gets the tensor and returns another one."""

        def forward(self, odd, x):
            return x * 2

    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.odd, self.takes, self.layer = Odd(), Takes(), nn.Conv2d(4, 2, 1)

        def forward(self, x):
            return self.layer(self.takes(self.odd(x), x))

    record = ft.capture(Around(), fields, loss=loss)
    assert [module.name for module in record.modules] == ["takes", "layer"]
    assert record.module("layer").stats["rms"] > 0
    assert names((*record.skipped, *record.errors)) == ["odd"]
