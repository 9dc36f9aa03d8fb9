"""Wrapped models are recorded like the bare ones, under the same names, and wrappers stay as they were."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    CheckpointImpl,
    apply_activation_checkpointing,
    checkpoint_wrapper,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrizations, parametrize
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

import fno_telemetry as ft
from fno_telemetry.records import FrozenMapping


@pytest.fixture
def process_group():
    """A group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def same(record, expected):
    """Whether all that is measured agrees, by name, class, role and number."""
    assert [m.name for m in record.modules] == [m.name for m in expected.modules]
    assert record.modules == expected.modules
    assert (record.blocks, record.output) == (expected.blocks, expected.output)
    assert (record.not_fired, record.errors) == ((), ())
    return record.summary["architecture"] == expected.summary["architecture"]


@pytest.fixture
def network(small_network):
    return small_network("fno_vanilla").eval()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("options", [{}, {"find_unused_parameters": True}, {"static_graph": True}])
@pytest.mark.usefixtures("process_group")
def test_a_distributed_model_is_recorded_once_under_its_own_names(options, compiled, network, images):
    expected = ft.capture(network, images)
    model = DistributedDataParallel(network, **options)
    if compiled:
        pytest.importorskip("torch._dynamo")
        model = torch.compile(model, backend="eager")
    assert same(ft.capture(model, images), expected)


@pytest.mark.usefixtures("process_group")
def test_a_capture_on_one_rank_broadcasts_nothing_and_leaves_the_next_step_as_it_was(images):
    model = DistributedDataParallel(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)))
    sent = []
    model._sync_buffers = lambda: sent.append("buffers")
    model(images).sum().backward()
    sent.clear()
    record = ft.capture(model, images)
    assert [m.name for m in record.modules] == ["0", "1"]
    assert sent == []
    model(images)
    assert sent == ["buffers"]


@pytest.mark.parametrize("options", [{}, {"find_unused_parameters": True}, {"static_graph": True}])
@pytest.mark.usefixtures("process_group")
def test_gradients_of_a_distributed_model_are_its_own_and_reduce_nothing(options, real_network, images):
    expected = ft.capture(real_network, images, loss=square)
    model = DistributedDataParallel(real_network, **options)
    reduced = []
    model.register_comm_hook(reduced, counted_reduction)
    assert same(ft.capture(model, images, loss=square), expected)
    assert reduced == []
    for _ in range(2):
        model.zero_grad()
        model(images).sum().backward()
    buckets = len(reduced)
    assert buckets
    ft.capture(model, [images, images], loss=square)
    # A training step after it, and one around it, reduce as ever.
    output = model(images)
    ft.capture(model, images, loss=square)
    output.sum().backward()
    model(images).sum().backward()
    assert len(reduced) == 2 * buckets


def counted_reduction(reduced, bucket):
    reduced.append(bucket.index())
    future = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future


def square(output, batch):
    outputs = [output] if isinstance(output, torch.Tensor) else output
    return sum(tensor.square().mean() for tensor in outputs)


@pytest.mark.filterwarnings("ignore:FSDP is switching to use `NO_SHARD`:UserWarning")
@pytest.mark.filterwarnings("ignore:The `NO_SHARD` sharding strategy is deprecated:FutureWarning")
@pytest.mark.parametrize("how", ["wrapped", "in place"])
@pytest.mark.usefixtures("process_group")
def test_gradients_of_a_sharded_model_are_refused_and_it_trains_on(how, real_network, images):
    if how == "wrapped":
        real_network = FullyShardedDataParallel(real_network, device_id=torch.device("cpu"))
    else:
        fully_shard(real_network, mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(ft.ModelError, match="sharded"):
        ft.capture(real_network, images, loss=square)
    real_network(images).sum().backward()
    assert all(parameter.grad is not None for parameter in real_network.parameters())


@pytest.fixture
def real_network():
    """A nested network without complex weights, beside which no other weights can be sharded."""
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.Conv2d(2, 2, 1), nn.GELU()))


@pytest.mark.filterwarnings("ignore:FSDP is switching to use `NO_SHARD`:UserWarning")
@pytest.mark.filterwarnings("ignore:The `NO_SHARD` sharding strategy is deprecated:FutureWarning")
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.usefixtures("process_group")
def test_a_fully_sharded_model_is_recorded_under_its_own_names(nested, real_network, images):
    expected = ft.capture(real_network, images)
    device = torch.device("cpu")
    if nested:
        real_network[1] = FullyShardedDataParallel(real_network[1], device_id=device)
    model = FullyShardedDataParallel(real_network, device_id=device)
    # Its parameters are pieces of one flat tensor, which belongs to no module.
    assert same(ft.capture(model, images), without_weights(expected))
    model(images).sum().backward()


def without_weights(record):
    def stats(module):
        return FrozenMapping({name: v for name, v in module.stats.items() if name != "weight_norm"})

    return replace(record, modules=tuple(replace(m, stats=stats(m)) for m in record.modules))


@pytest.mark.usefixtures("process_group")
def test_a_model_sharded_in_place_keeps_the_names_of_its_classes(real_network, images):
    expected = ft.capture(real_network, images)
    mesh = init_device_mesh("cpu", (1,))
    fully_shard(real_network[1], mesh=mesh)
    fully_shard(real_network, mesh=mesh)
    assert type(real_network).__name__ == "FSDPSequential"
    assert same(ft.capture(real_network, images), expected)
    real_network(images).sum().backward()


def test_a_model_spread_over_devices_runs_on_one_and_is_spread_again_afterwards(network, images):
    expected = ft.capture(network, images)
    model = nn.DataParallel(network)
    model.device_ids = [0, 1]
    assert same(ft.capture(model, images), expected)
    assert model.device_ids == [0, 1]


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
@pytest.mark.parametrize("kind", [CheckpointImpl.REENTRANT, CheckpointImpl.NO_REENTRANT])
def test_checkpoint_wrappers_vanish_from_the_names(kind, network, images):
    expected = ft.capture(network, images)
    blocks = [*network.blocks]
    apply_activation_checkpointing(
        network,
        checkpoint_wrapper_fn=lambda module: checkpoint_wrapper(module, checkpoint_impl=kind),
        check_fn=lambda module: module in blocks,
    )
    assert any("_checkpoint_wrapped_module" in name for name, _ in network.named_modules())
    assert same(ft.capture(network, images), expected)


@pytest.mark.parametrize("reentrant", [True, False])
def test_what_checkpointing_computes_again_in_a_backward_pass_is_not_counted(reentrant, network, images):
    class Checkpointed(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.net = network

        def forward(self, x):
            return checkpoint(self.net, x, use_reentrant=reentrant)

    model = Checkpointed(network)
    gradients = []

    def train(batch):
        with torch.enable_grad():
            batch = batch.detach().clone().requires_grad_(True)
            model(batch).square().sum().backward()
        gradients.append(batch.grad)

    expected = ft.capture(network, images)
    ran = []
    network.blocks[0].register_forward_hook(lambda *_: ran.append(1))
    train(images)
    assert len(ran) == 2, "it is computed again"
    record = ft.capture(model, images, forward=train)
    assert [(m.name, m.call) for m in record.modules] == [(m.name, 0) for m in expected.modules]
    assert (record.modules, record.blocks) == (expected.modules, expected.blocks)
    assert torch.equal(gradients[0], gradients[-1])


def test_a_derivative_inside_the_forward_counts_no_call_twice(images):
    class Energy(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Tanh())

        def forward(self, x):
            with torch.enable_grad():
                x = x.detach().requires_grad_(True)
                y = checkpoint(self.part, x, use_reentrant=False)
                return torch.autograd.grad(y.sum(), x)[0]

    record = ft.capture(Energy(), images)
    assert [(m.name, m.call) for m in record.modules] == [("part.0", 0), ("part.1", 0)]


def test_an_averaged_model_is_recorded_and_averages_on(network, images):
    expected = ft.capture(network, images)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    assert same(ft.capture(average, images), expected)
    # The average of what it holds is made of the network, of which nothing was recorded.
    record = ft.capture(network, images, forward=lambda x: (average(x + 1), network(x), average(x)))
    assert same(record, expected)
    average.update_parameters(network)
    assert int(average.n_averaged) == 1


def test_a_copy_made_and_run_inside_the_forward_records_no_module(images):
    class Teaches(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.Sequential(nn.Conv2d(1, 2, 1), nn.GELU())

        def forward(self, x):
            teacher = copy.deepcopy(self.part)
            return self.part(x) - teacher(x + 1).mean()

    record = ft.capture(Teaches(), images)
    assert [(m.name, m.call, m.shape[0]) for m in record.modules] == [("part.0", 0, 8), ("part.1", 0, 8)]
    assert (record.not_fired, record.errors) == ((), ())


@pytest.mark.parametrize("order", ["before", "after", "both"])
def test_a_module_shared_with_another_model_is_recorded_in_its_own_models_forward_only(order, images):
    shared = nn.GELU()
    model = nn.Sequential(nn.Conv2d(1, 2, 1), shared)
    other = nn.Sequential(nn.Conv2d(1, 7, 1), shared)
    expected = ft.capture(model, images)

    def forward(x):
        if order != "after":
            other(x)
        y = model(x)
        if order != "before":
            other(x)
        return y

    assert same(ft.capture(model, images, forward=forward), expected)
    assert ft.map_model(model, images, forward=forward)["1"].calls == 1


def test_what_is_called_beside_the_model_only_is_named(images):
    model = nn.ModuleDict({"main": nn.Conv2d(1, 2, 1), "extra": nn.Sequential(nn.Conv2d(1, 2, 1))})
    model.forward = lambda x: model["main"](x)
    record = ft.capture(model, images, forward=lambda x: model(x) + model["extra"](x))
    assert [m.name for m in record.modules] == ["main"]
    reason = "called only outside the model's own forward"
    assert [{**entry} for entry in record.not_fired] == [
        {"name": "extra.0", "reason": reason},
    ]
    # Where the model itself is never called, its parts are all there is.
    record = ft.capture(model, images, forward=lambda x: model["main"](x) + model["extra"](x))
    assert [m.name for m in record.modules] == ["main", "extra.0"]


def test_a_part_called_through_its_forward_is_named_and_what_is_inside_is_recorded(network, images):
    class Direct(nn.Module):
        def __init__(self):
            super().__init__()
            self.lifting, self.part = nn.Conv2d(1, 1, 1), network

        def forward(self, x):
            return self.part.forward(self.lifting.forward(x))

    record = ft.capture(Direct(), images)
    assert [{**entry} for entry in record.not_fired] == [
        {"name": name, "reason": "its forward was not called"} for name in ("lifting", "part")
    ]
    assert {"part.blocks.0", "part.blocks.1"} == {block.name for block in record.blocks}


def test_a_traced_graph_is_recorded_under_the_names_of_its_modules(network, images):
    expected = ft.capture(nn.Sequential(nn.Conv2d(1, 2, 1), nn.GELU()), images)
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(1, 2, 1), nn.GELU())
    traced = torch.fx.symbolic_trace(plain)
    record = ft.capture(traced, images)
    assert record.modules == ft.capture(plain, images).modules
    assert [m.name for m in record.modules] == [m.name for m in expected.modules]
    assert record.not_fired == ()


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_a_parametrized_layer_keeps_the_name_of_its_class(wrap, images):
    record = ft.capture(nn.Sequential(wrap(nn.Conv2d(1, 2, 1))).eval(), images)
    assert [(m.name, m.class_name) for m in record.modules] == [("0", "Conv2d")]


def test_what_computes_a_weight_is_no_activation_of_the_layer(images):
    class Bounded(nn.Module):
        def forward(self, weight):
            return torch.fft.irfft2(torch.fft.rfft2(torch.tanh(weight)), s=weight.shape[-2:])

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.rand(2, 1, 3, 3))

        def forward(self, x):
            return nn.functional.relu(nn.functional.conv2d(x, self.weight))

    layer = Layer()
    parametrize.register_parametrization(layer, "weight", Bounded())
    record = ft.capture(nn.Sequential(layer), images)
    assert [(m.name, m.class_name, m.role) for m in record.modules] == [
        ("0#relu", "relu", "activation"),
        ("0", "Layer", "other"),
    ]
    assert record.not_fired == ()
