"""What may be handed to a capture: batches of every form, a forward of one's own, filters, additions."""

import dataclasses
import hashlib

import numpy as np
import pytest
import torch
from torch import nn

import fno_telemetry as ft
from fno_telemetry import plugins
from fno_telemetry.statistics import kernels
from fno_telemetry.statistics.contract import keys_of
from support.notes import Notes


class TwoInputs(nn.Module):
    """Takes two tensors, and a third by keyword only."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.seen = Notes()

    def forward(self, x, grid, *, scale=None):
        self.seen.append((x.clone(), grid.clone(), scale))
        y = self.layer(x) + grid
        return y if scale is None else y * scale


class KeywordsOnly(nn.Module):
    """Takes nothing by position."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, *, field, mask):
        return {"field": self.layer(field) * mask}


@dataclasses.dataclass
class Sample:
    field: torch.Tensor


def means(record):
    return {(m.name, m.call, m.item): m.stats["mean"] for m in record.modules}


@pytest.mark.parametrize(
    "form",
    [
        lambda x, g: (x, g),
        lambda x, g: {"x": x, "grid": g},
        lambda x, g: [(x, g)],
        lambda x, g: [[x, g]],
        lambda x, g: iter([(x[:2], g[:2]), (x[2:], g[2:])]),
        lambda x, g: ({"x": a, "grid": b} for a, b in zip(x.split(2), g.split(2), strict=True)),
        lambda x, g: torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, g), batch_size=3),
    ],
    ids=["tuple", "dict", "list", "list of lists", "iterator", "generator", "loader"],
)
def test_batches_of_every_form_reach_the_model(form):
    x, grid = torch.rand(5, 4), torch.rand(5, 4)
    model = TwoInputs()
    record = ft.capture(model, form(x, grid))
    captured = model.seen[1:]
    assert torch.equal(torch.cat([entry[0] for entry in captured]), x)
    assert torch.equal(torch.cat([entry[1] for entry in captured]), grid)
    assert record.summary["n_samples"] == 5
    assert record.module("layer").shape == (5, 4)
    assert record.input.shape == (5, 4)


def test_a_tensor_is_one_batch_and_a_list_of_tensors_are_batches(images):
    seen = []
    model = nn.Sequential(nn.Flatten())
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[0]))
    ft.capture(model, images)
    ft.capture(model, list(images.split(3)))
    assert seen == [1, 8, 1, 3, 3, 2]


def test_a_batch_that_is_iterated_over_is_asked_for_one_at_a_time(images):
    order = []

    def batches():
        for number, batch in enumerate(images.split(4)):
            order.append(f"batch {number}")
            yield batch

    model = nn.Sequential(nn.Flatten())
    ft.capture(model, batches(), forward=lambda x: order.append("forward") or model(x))
    assert order == ["batch 0", "forward", "forward", "batch 1", "forward"]


def test_keyword_only_inputs_and_dict_outputs():
    field = torch.rand(3, 4)
    record = ft.capture(KeywordsOnly(), {"field": field, "mask": torch.ones(3, 1)})
    assert record.module("layer").shape == (3, 4)
    assert record.output.item == "field"
    assert record.input.stats["mean"] == pytest.approx(float(field.double().mean()), rel=1e-6)


def test_forward_runs_anything_else():
    layer = nn.Linear(4, 4)
    model = nn.Sequential(layer, nn.Tanh())
    fields = torch.rand(6, 4)
    batches = [Sample(part) for part in fields.split(2)]
    record = ft.capture(model, batches, forward=lambda sample: model(sample.field * 2).sum())
    expected = model(fields * 2).detach().double().mean()
    assert record.module("1").stats["mean"] == pytest.approx(float(expected), rel=1e-5)
    assert record.summary["n_samples"] == 6
    assert record.input.stats["mean"] == pytest.approx(float(fields.double().mean()), rel=1e-6)


def test_a_forward_that_calls_the_model_twice_gives_two_calls():
    model = nn.Sequential(nn.Linear(4, 4))
    x = torch.rand(3, 4)
    record = ft.capture(model, x, forward=lambda batch: model(model(batch)))
    assert [(m.name, m.call) for m in record.modules] == [("0", 0), ("0", 1)]
    second = model(model(x)).detach().double().mean()
    assert record.module("0", 1).stats["mean"] == pytest.approx(float(second), rel=1e-5)
    assert len(record.outputs) == 2


def test_a_forward_that_does_not_call_the_model_is_refused(images):
    with pytest.raises(ft.MapError, match="never called: `forward` must call it"):
        ft.capture(nn.Sequential(nn.Flatten()), images, forward=lambda batch: batch)


@pytest.mark.parametrize("batches", [[], iter([]), ()])
def test_no_batch_is_refused(batches):
    for act in (ft.capture, ft.map_model):
        if batches != ():
            with pytest.raises(ft.InputError, match="there is no batch"):
                act(nn.Sequential(nn.Flatten()), batches)


@pytest.mark.parametrize("batches", [3, None, "images", np.zeros((2, 4), np.float32)])
def test_what_is_no_batch_is_refused(batches):
    with pytest.raises(ft.InputError, match=r"`batches` is a .*; expected a tensor, or a list or iterator"):
        ft.capture(nn.Sequential(nn.Flatten()), batches)


def test_an_error_of_a_forward_has_a_note_of_what_its_batch_was_taken_to_be():
    pair = [torch.rand(4, 3), torch.rand(4, 1)]  # as a DataLoader of (x, y) gives it
    for run in (ft.capture, ft.map_model):
        with pytest.raises(TypeError, match="takes 2 positional arguments but 3 were given") as caught:
            run(nn.Sequential(nn.Linear(3, 1)), [pair])
        note, advice = caught.value.__notes__
        taken = "a batch was taken to be 2 positional arguments: (4, 3) float32, (4, 1) float32"
        assert note == f"fno-telemetry: {taken}"
        assert "`inputs=0, target=1` would give part 0 to the model" in advice
    model = nn.Sequential(nn.Linear(3, 1))
    record = ft.capture(model, [pair], forward=lambda batch: model(batch[0]))
    assert record.module("0").shape == (4, 1)


def test_an_error_that_takes_no_note_is_raised_all_the_same():
    class FrozenError(Exception):
        def add_note(self, note):
            raise AttributeError("is frozen")

    class Failing(nn.Module):
        def forward(self, x):
            raise FrozenError("mine")

    with pytest.raises(FrozenError, match="mine"):
        ft.capture(Failing(), torch.zeros(1, 1))


def test_an_error_of_the_models_forward_is_raised_as_it_is():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        ft.capture(nn.Sequential(nn.Linear(4, 4)), torch.rand(3, 5))


def test_samples_without_a_batch_axis_are_measured_without_one():
    class NoBatch(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 6)

        def forward(self, x):
            return self.layer(x.mean(0))

    record = ft.capture(NoBatch(), [torch.rand(3, 4), torch.rand(2, 4)])
    module = record.module("layer")
    assert module.shape == (6,)
    assert module.stats["count"] == 12
    assert module.stats["sample_variation"] is None
    assert module.reasons["sample_variation"] == "the tensor has no sample axis"


def test_layers_are_chosen_by_patterns_that_cross_dots(small_network, images):
    model = small_network()

    def chosen(**options):
        return [module.name for module in ft.capture(model, images, **options).modules]

    assert chosen(layers=["*.spectral"]) == ["fno_blocks.0.spectral", "fno_blocks.1.spectral"]
    assert chosen(layers=["fno_blocks.?"]) == ["fno_blocks.0", "fno_blocks.1"]
    # In the order of completion, whatever the order of the patterns.
    assert chosen(layers=["output_proj", "lifter"]) == ["lifter", "output_proj"]
    # A container that is no block is measured when it is asked for.
    assert chosen(layers=["cnn_refiner"]) == ["cnn_refiner"]
    assert "fno_blocks.1.spectral" not in chosen(exclude=["fno*"])
    assert chosen(layers=["fno*"], exclude=["*spectral", "*.1*", "*act"]) == [
        "fno_blocks.0.local_conv",
        "fno_blocks.0",
    ]


def test_numbers_do_not_depend_on_what_else_is_measured(small_network, images):
    model = small_network("stable_hybrid")
    whole = ft.capture(model, images)
    part = ft.capture(model, images, layers=["encoder_blocks.1.spectral", "bottleneck"])
    for module in part.modules:
        assert {**module.stats} == {**whole.module(module.name).stats}
    assert part.blocks == whole.blocks


@pytest.mark.parametrize("option", ["layers", "exclude"])
def test_a_pattern_that_matches_nothing_is_an_error_with_the_nearest_names(option, small_network, images):
    with pytest.raises(
        ft.MapError, match=r"'fno_block\.0\.spectral' matches no module; near it: .*fno_blocks\.0"
    ) as caught:
        ft.capture(small_network(), images, **{option: ["lifter", "fno_block.0.spectral"]})
    assert "\n" not in str(caught.value)


def test_leaving_nothing_to_measure_is_an_error(small_network, images):
    with pytest.raises(ft.MapError, match="leave no module to measure"):
        ft.capture(small_network(), images, exclude=["*"])


def test_statistics_can_be_chosen(images):
    values = plugins.load("statistics", "values")()
    record = ft.capture(nn.Sequential(nn.Flatten()), images, statistics=[values])
    assert set(record.module("0").stats) == set(keys_of(values))


def test_progress_counts_samples(images):
    done = []
    ft.capture(nn.Sequential(nn.Flatten()), list(images.split(3)), progress=done.append)
    assert done == [3, 6, 8]


def test_summary_provenance_and_warnings_of_the_caller_are_kept(images):
    record = ft.capture(
        nn.Sequential(nn.Flatten()),
        images,
        summary={"architecture": "mine", "seed": 3},
        provenance={"command": "run", "input": {"path": "a.npz"}},
        warnings=["all equal"],
    )
    assert (record.summary["architecture"], record.summary["seed"]) == ("mine", 3)
    assert record.provenance["command"] == "run"
    assert record.provenance["input"].keys() == {"shape", "digest", "path"}
    assert record.warnings == ("all equal",)


def test_the_digest_is_that_of_the_values_and_the_shape(images):
    expected = hashlib.sha256(images.numpy().astype("<f4").tobytes() + b"8,1,12,10").hexdigest()
    model = nn.Sequential(nn.Flatten())
    for batches in (images, list(images.split(3)), list(images.split(1)), images.double()):
        assert ft.capture(model, batches).provenance["input"]["digest"] == expected


def test_an_input_that_cannot_be_digested_does_not_end_the_capture():
    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(x.to_dense())

    record = ft.capture(Dense(), torch.eye(4).to_sparse())
    assert record.provenance["input"]["digest"] is None
    assert record.module("layer").shape == (4, 4)
    assert [entry["name"] for entry in record.skipped] == ["input"]
    assert [entry["name"] for entry in record.errors] == ["input"]


def test_the_time_spent_is_told_apart(small_network, images):
    record = ft.capture(small_network(), list(images.split(2)))
    times = record.provenance["overhead"]
    assert all(times[key] > 0 for key in ("telemetry_seconds", "model_seconds", "observation_seconds"))
    parts = sum(times[key] for key in ("telemetry_seconds", "model_seconds", "observation_seconds"))
    assert parts <= record.provenance["wall_seconds"]
    assert times["mean_field_bytes"] > 0


def test_mean_fields_beyond_the_memory_limit_are_given_up_with_a_reason(small_network, images):
    record = ft.capture(small_network(), list(images.split(2)), memory_limit=3000)
    reasons = [module.reasons.get("sample_variation") for module in record.modules]
    assert record.provenance["overhead"]["mean_field_bytes"] <= 3000
    assert reasons.count(None) < len(reasons)
    assert {r for r in reasons if r} == {"its mean field would exceed the memory limit of 1 MiB"}


@pytest.mark.parametrize("one", [lambda batch: batch, lambda batch: (batch,), lambda batch: [batch]])
def test_a_single_batch_needs_no_mean_fields(small_network, images, one):
    network = small_network()
    record = ft.capture(network, one(images), memory_limit=3000)
    assert record.provenance["overhead"]["mean_field_bytes"] < 3000
    halves = ft.capture(network, list(images.split(2)))
    for module, other in zip(record.modules, halves.modules, strict=True):
        for key in ("sample_variation", "relative_sample_variation"):
            assert module.stats[key] == pytest.approx(other.stats[key], rel=1e-6)


def test_a_light_budget_is_stated_in_the_record():
    model = nn.Sequential(nn.Conv2d(1, 32, 1))
    fields = torch.randn(4, 1, 64, 64)
    light, full = (ft.capture(model, fields, budget=budget) for budget in ("light", "full"))
    assert (light.provenance["budget"], full.provenance["budget"]) == ("light", "full")
    own, whole = light.module("0"), full.module("0")
    assert (own.sketch.share, own.spectrum.share) == (pytest.approx(1 / 8, rel=0.01), 1 / 8)
    assert (whole.sketch.share, whole.sketch.rank_error, whole.spectrum.share_error) == (1, 0, 0)
    assert own.stats["rms"] == whole.stats["rms"]
    assert "light budget" in repr(light) and "light budget" not in repr(full)


def test_a_small_batch_counts_no_more_than_its_part_with_a_light_budget():
    batches = [torch.randn(8, 16, 64, 64), torch.randn(1, 16, 64, 64) * 10]
    model = nn.Sequential(nn.Conv2d(16, 16, 1))
    light, full = (ft.capture(model, batches, budget=budget).module("0") for budget in ("light", "full"))
    with torch.no_grad():
        values = torch.cat([model(batch).flatten() for batch in batches]).numpy()
    rank = (values <= light.stats["p95"]).mean()
    assert abs(rank - 0.95) < light.sketch.rank_error + 0.004
    assert light.spectrum.share == 1 / 8
    error = light.stats["low_frequency_fraction"] - full.stats["low_frequency_fraction"]
    assert abs(error) < light.spectrum.share_error


def test_an_unknown_budget_is_refused():
    with pytest.raises(ft.OptionError, match="unknown budget 'ligth'"):
        ft.capture(nn.Sequential(nn.Conv2d(1, 1, 1)), torch.randn(2, 1, 8, 8), budget="ligth")


@pytest.mark.parametrize("kind", ["torch", "numba"])
def test_the_record_names_what_computed_the_loops(kind):
    pytest.importorskip(kind)
    with kernels.using(kind):
        record = ft.capture(nn.Sequential(nn.Conv2d(1, 1, 1)), torch.randn(2, 1, 8, 8))
    assert record.provenance["kernels"].startswith(f"{kind} ")
