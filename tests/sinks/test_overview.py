"""What dashboards get by default: which layers, which numbers of each, in which order."""

from dataclasses import replace
from itertools import pairwise

import pytest

from fno_telemetry import keys
from fno_telemetry.quantities import Quantity
from fno_telemetry.records import AccuracyRecord, CaptureRecord, FrozenMapping, ParameterRecord
from fno_telemetry.sinks.overview import (
    MOST_LAYERS,
    at_detail,
    list_layers,
    loss_by_key,
    select_overview,
    sort_quantities,
    spread,
)
from fno_telemetry.sinks.tensorboard.summaries import scalars
from fno_telemetry.sinks.wandb.rows import row

TENSOR = ["low_frequency_fraction", "rms", "abs_p50", "abs_p99", "sample_variation", "dead_channel_fraction"]
BRANCHES = ["spectral_share", "update_ratio", "gain"]


def names_at(record: CaptureRecord, place: str) -> list[str]:
    found = [key for key, _ in keys.numbers(record) if key.partition("/")[2] == place]
    return [key.partition("/")[0] for key in found]


def test_the_overview_has_the_layers_with_a_role_the_input_and_the_first_output(record):
    shown = select_overview(record)
    assert [module.place for module in shown.modules] == [
        "lifter",
        "fno_blocks.0.spectral",
        "fno_blocks.0.local_conv",
        "fno_blocks.0",
        "fno_blocks.1",
        "fno_blocks.10",
        "heads[0]",
        "heads[1]",
        "output",
    ]
    assert list(shown.input.stats) == list(shown.output.stats) == TENSOR
    assert shown.outputs == ()
    assert names_at(shown, "lifter") == TENSOR
    assert names_at(shown, "fno_blocks/1") == [*TENSOR, *BRANCHES]
    assert shown.module("lifter").histogram == record.module("lifter").histogram
    assert shown.findings is record.findings
    # How far thousands of parameters moved is for the report and the full detail.
    assert all("moved" not in parameter.stats for parameter in shown.parameters)
    # Nor are those of single bands and channels in it.
    assert record.accuracy.bands is not None
    assert shown.accuracy == replace(record.accuracy, bands=None, channels=None)


def test_full_detail_is_the_record_itself(record):
    assert at_detail(record, "full") is record
    assert at_detail(record, "overview") == select_overview(record)


def test_the_gradient_norm_is_in_the_overview_where_there_is_a_loss(record, examples):
    given = examples.with_stats(record, "lifter", grad_norm=0.5, grad_to_weight=0.1)
    assert names_at(select_overview(given), "lifter") == [*TENSOR, "grad_norm"]


@pytest.fixture
def trained(record, examples) -> CaptureRecord:
    """The record as of a training step."""

    def parameter(name: str, **stats: float | None) -> ParameterRecord:
        return ParameterRecord(name=name, shape=(3,), dtype="float32", stats=FrozenMapping(stats))

    given = examples.with_stats(record, "lifter", update_to_weight=0.01, grad_norm=0.5, grad_to_weight=0.1)
    return replace(
        given,
        parameters=(
            parameter("lifter.weight", moved=0.2),
            parameter("gate", weight_norm=2.0, update_to_weight=None, grad_norm=0.25, moved=0.1),
        ),
        accuracy=AccuracyRecord(stats=FrozenMapping({"relative_l2": 0.75, "output_to_target_rms": 0.5})),
        summary=FrozenMapping({**given.summary, "loss": 0.125}),
        training=FrozenMapping({"stage": "train"}),
    )


def test_in_training_gradients_updates_and_the_accuracy_are_in_the_overview_and_movement_is_not(trained):
    shown = select_overview(trained)
    assert names_at(shown, "lifter") == [*TENSOR, "grad_norm", "update_to_weight"]
    assert [(each.name, dict(each.stats)) for each in shown.parameters] == [
        ("gate", {"grad_norm": 0.25, "update_to_weight": None})
    ]
    assert shown.accuracy == trained.accuracy
    assert dict(keys.numbers(trained))["moved/lifter/weight"] == 0.2


@pytest.mark.parametrize("detail", ["overview", "full"])
def test_both_dashboards_have_the_numbers_of_training(trained, detail):
    curves = dict(scalars(at_detail(trained, detail)))
    made = row(trained, detail)
    for found in (curves, made.scalars):
        assert found["captured_loss"] == 0.125
        assert found["relative_l2/accuracy"] == 0.75
        assert found["output_to_target_rms/accuracy"] == 0.5
        assert found["grad_norm/gate"] == 0.25
        assert found["update_to_weight/lifter"] == 0.01
        assert ("moved/lifter/weight" in found) == (detail == "full")
    in_tensorboard = {tag for tag in curves if "/" in tag}
    assert in_tensorboard == {key for key in made.scalars if "/" in key}


def test_of_many_parameters_without_a_layer_some_are_shown(trained):
    [gate] = [parameter for parameter in trained.parameters if parameter.name == "gate"]
    many = tuple(replace(gate, name=f"gates.{index}") for index in range(1_000))
    shown = select_overview(replace(trained, parameters=many)).parameters
    assert len(shown) == MOST_LAYERS
    assert (shown[0].name, shown[-1].name) == ("gates.0", "gates.999")


def test_a_number_of_another_package_is_in_the_overview_unless_it_says_otherwise(record, examples):
    own = (
        Quantity(name="peak", title="largest"),
        Quantity(name="hidden", title="for experts", in_overview=False),
        Quantity(name="first", title="the most telling", rank=0),
    )
    given = examples.with_stats(
        replace(record, quantities=own), "lifter", peak=1.0, hidden=2.0, first=3.0, undeclared=4.0
    )
    shown = names_at(select_overview(given), "lifter")
    assert shown == ["low_frequency_fraction", "first", *TENSOR[1:], "peak", "undeclared"]


def test_a_layer_has_twelve_numbers_at_most_the_most_telling_those_of_its_block_among_them(record, examples):
    own = tuple(Quantity(name=f"own_{i}", title=f"own {i}", rank=600 - i) for i in range(9))
    given = replace(record, quantities=own)
    many = {quantity.name: 1.0 for quantity in own}
    given = examples.with_stats(examples.with_stats(given, "fno_blocks.1", **many), "lifter", **many)
    best = [f"own_{i}" for i in range(8, -1, -1)]
    shown = select_overview(given)
    assert names_at(shown, "lifter") == [*TENSOR, *best[:6]]
    assert names_at(shown, "fno_blocks/1") == [*TENSOR, *best[:3], *BRANCHES]


def test_which_numbers_are_in_it_does_not_depend_on_values(record):
    undefined = tuple(
        replace(module, stats=FrozenMapping(dict.fromkeys(module.stats))) for module in record.modules
    )
    shown = select_overview(replace(record, modules=undefined))
    assert [list(module.stats) for module in shown.modules] == [
        list(module.stats) for module in select_overview(record).modules
    ]


@pytest.mark.parametrize(
    ("roles", "kept"),
    [
        ({"other", "norm", "activation"}, ["dead", "narrow"]),
        ({"norm", "activation"}, ["fno_blocks.0#gelu", "shared", "shared@1"]),
        (set(), []),
    ],
)
def test_without_a_layer_with_a_role_other_layers_take_their_place(record, examples, roles, kept):
    modules = [module for module in record.modules if module.role in roles]
    given = replace(record, modules=tuple(module for module in modules if module.name != examples.AWKWARD))
    assert [module.place for module in select_overview(given).modules] == kept


def test_of_a_very_deep_network_layers_are_evenly_spread(record, examples):
    large = examples.large(record, 1_000)
    shown = [module.order for module in select_overview(large).modules]
    assert len(shown) == MOST_LAYERS
    assert (shown[0], shown[-1]) == (0, 999)
    assert {after - before for before, after in pairwise(shown)} == {5, 6}
    assert len(list(keys.numbers(select_overview(large)))) <= 12 * (MOST_LAYERS + 2 + 50)


def test_spreading_keeps_the_first_and_the_last():
    assert spread("abc", 3) == ["a", "b", "c"]
    assert spread(range(100), 2) == [0, 99]
    assert spread(range(5), 3) == [0, 2, 4]


def test_low_frequencies_and_the_branch_share_come_first_and_the_rest_by_rank(record):
    names = ["gain", "rms", "update_ratio", "spectral_share", "count", "low_frequency_fraction"]
    shown = [quantity.name for quantity in sort_quantities(names, record)]
    assert shown == ["low_frequency_fraction", "spectral_share", "update_ratio", "gain", "rms"]
    assert [quantity.name for quantity in sort_quantities(names, record, "full")] == [*shown, "count"]


def test_layers_are_listed_in_order_of_depth_with_the_numbers_of_their_blocks(record):
    layers = list_layers(record)
    assert [layer.name for layer in layers][:3] == ["input", "lifter", "fno_blocks.0.spectral"]
    assert layers[-1].role == "output"
    [block] = [layer for layer in layers if layer.name == "fno_blocks.1"]
    assert (block.role, block.stats["gain"], block.stats["rms"]) == (
        "block",
        1.2,
        record.module("fno_blocks.1").stats["rms"],
    )
    [only] = [layer for layer in layers if layer.name == "spec_encoder#0"]
    assert (only.role, only.shape, dict(only.stats)) == (
        "block",
        None,
        {"spectral_share": None, "update_ratio": 0.4, "gain": 1.4},
    )


def test_the_loss_is_there_where_one_was_given(record):
    assert loss_by_key(record) == {}
    given = replace(record, summary=FrozenMapping({**record.summary, "loss": 0.5}))
    assert loss_by_key(given) == {"captured_loss": 0.5}
    validation = replace(given, training=FrozenMapping({"stage": "val"}))
    assert loss_by_key(validation) == {"val/captured_loss": 0.5}
