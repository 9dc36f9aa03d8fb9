"""A watched training loop: the numbers of its due steps, and what it costs the loop, which is nothing."""

import copy
import gc
import io
import math
import pickle
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import fno_telemetry as ft
from fno_telemetry.testing.in_memory_sink import InMemorySink


class Block(nn.Module):
    """A spectral and a local branch, and the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.1 * torch.randn(channels, channels, 4, 3, dtype=torch.cfloat))
        self.local = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        spectrum = torch.fft.rfft2(x)
        kept = torch.zeros_like(spectrum)
        kept[..., :4, :3] = torch.einsum("bchw,cdhw->bdhw", spectrum[..., :4, :3], self.weight)
        return torch.fft.irfft2(kept, s=x.shape[-2:])


class Network(nn.Module):
    """A small FNO with a normalisation, dropout, and a parameter of its own."""

    def __init__(self, dropout: float = 0.1, checkpoints: bool | None = None) -> None:
        super().__init__()
        self.lifting = nn.Conv2d(1, 6, 1)
        self.spectral = Block(6)
        self.local = nn.Conv2d(6, 6, 1)
        self.norm = nn.BatchNorm2d(6)
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Conv2d(6, 1, 1)
        self.gate = nn.Parameter(torch.tensor(0.5))
        self._checkpoints = checkpoints

    def forward(self, x):
        x = self.lifting(x)
        if self._checkpoints is None:
            x = self.block(x)
        else:
            x = checkpoint(self.block, x, use_reentrant=self._checkpoints)
        return self.projection(self.dropout(x))

    def block(self, x):
        return x + self.gate * nn.functional.gelu(self.norm(self.spectral(x) + self.local(x)))


def make(seed: int = 0, **options) -> tuple[Network, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    network = Network(**options)
    return network, torch.optim.AdamW(network.parameters(), lr=1e-2)


def batches(number: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(7)
    fields = [torch.randn(4, 1, 12, 10, generator=generator) for _ in range(number)]
    return [(field, field.roll(1, -1)) for field in fields]


def train(network, optimizer, number, watch=None, accumulate=1, autocast=None, clip=None) -> list[float]:
    """Return the losses of a plain loop."""
    losses = []
    loader = batches(number * accumulate)
    for step in range(number):
        for x, y in loader[step * accumulate : (step + 1) * accumulate]:
            with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
                output = network(x)
                loss = nn.functional.mse_loss(output.float(), y) / accumulate
            loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if watch is not None:
            watch.step(step, loss=loss, output=output, target=y)
    return losses


@pytest.fixture
def sink() -> InMemorySink:
    return InMemorySink()


def state_of(network, optimizer) -> list[torch.Tensor]:
    tensors = [*network.state_dict().values()]
    tensors += [value for own in optimizer.state.values() for value in own.values()]
    return [*tensors, torch.get_rng_state()]


def reference(number: int, **options) -> dict[str, list[dict[str, np.ndarray]]]:
    """Return the gradients and the parameters before and after each step of a loop that nobody watches."""
    network, optimizer = make(**options.pop("build", {}))
    found: dict[str, list[dict[str, np.ndarray]]] = {"gradients": [], "before": [], "after": []}
    keep = {}

    def note(into):
        found[into].append({n: p.detach().clone().numpy() for n, p in network.named_parameters()})

    step = optimizer.step

    def stepped():
        note("before")
        step()
        note("after")

    optimizer.step = stepped
    clip = nn.utils.clip_grad_norm_

    def keep_gradients():
        keep.update(
            {n: None if p.grad is None else p.grad.clone().numpy() for n, p in network.named_parameters()}
        )
        return dict(keep)

    accumulate = options.get("accumulate", 1)
    loader = batches(number * accumulate)
    for index in range(number):
        for x, y in loader[index * accumulate : (index + 1) * accumulate]:
            (nn.functional.mse_loss(network(x).float(), y) / accumulate).backward()
        found["gradients"].append(keep_gradients())
        if options.get("clip") is not None:
            clip(network.parameters(), options["clip"])
        optimizer.step()
        optimizer.zero_grad()
    return found


@pytest.mark.parametrize("loop", [{}, {"accumulate": 3}, {"clip": 0.01}], ids=["plain", "three", "clipped"])
def test_gradients_and_updates_equal_those_kept_by_hand(sink, loop):
    expected = reference(4, **loop)
    network, optimizer = make()
    with ft.watch(network, [sink], every=1) as watch:
        train(network, optimizer, 4, watch, **loop)
    assert [record.step for record in sink.records] == [0, 1, 2, 3]
    for step, record in enumerate(sink.records):
        gradients, before, after = (expected[kind][step] for kind in ("gradients", "before", "after"))
        for name in ("lifting", "spectral", "local", "norm", "projection"):
            own = [key for key in gradients if key.startswith(f"{name}.") and "spectral.local" not in key]
            stats = record.module(name).stats
            norm = math.sqrt(sum((abs(gradients[key].astype(complex)) ** 2).sum() for key in own))
            assert stats["grad_norm"] == pytest.approx(norm, rel=1e-6), name
            change = math.sqrt(sum((abs(after[k].astype(complex) - before[k]) ** 2).sum() for k in own))
            size = math.sqrt(sum((abs(before[key].astype(complex)) ** 2).sum() for key in own))
            assert stats["update_to_weight"] == pytest.approx(change / size, rel=1e-5), name
        by_name = {parameter.name: parameter.stats for parameter in record.parameters}
        assert by_name.keys() == gradients.keys()
        gate = by_name["gate"]
        assert gate["grad_norm"] == pytest.approx(abs(float(gradients["gate"])), rel=1e-6)
        assert gate["weight_norm"] == pytest.approx(abs(float(after["gate"])), rel=1e-6)
        first = expected["before"][0]
        for name, stats in by_name.items():
            change, size = np.linalg.norm(after[name] - first[name]), np.linalg.norm(first[name])
            if gradients[name] is None:
                # No weight decay without a gradient.
                assert stats["moved"] == 0 == change
            elif size == 0:
                assert stats["moved"] is None and change > 0
            else:
                assert stats["moved"] == pytest.approx(change / size, rel=1e-5), name


class Tied(nn.Module):
    """Two layers with the same weight and biases of their own, the second one called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(torch.tanh(self.second(torch.tanh(self.first(x)))))


def step_in_numpy(w, b1, b2, x, y):
    """Return the gradients of the mean square error in the weight and both biases, by the chain rule."""
    one = np.tanh(x @ w.T + b1)
    two = np.tanh(one @ w.T + b2)
    last = 2 * (two @ w.T + b2 - y) / y.size
    second = (last @ w) * (1 - two**2)
    first = (second @ w) * (1 - one**2)
    of_w = last.T @ two + second.T @ one + first.T @ x
    return of_w, first.sum(0), last.sum(0) + second.sum(0)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_gradients_and_updates_of_shared_weights_equal_numpy(sink, accumulate):
    torch.manual_seed(0)
    network, rate, clip = Tied(), 0.1, 0.05
    optimizer = torch.optim.SGD(network.parameters(), lr=rate)
    names = ("first.weight", "first.bias", "second.bias")
    own = [network.get_parameter(name).detach().double().numpy().copy() for name in names]
    start = [each.copy() for each in own]
    kept = []
    with ft.watch(network, [sink], every=1) as watch:
        for step in range(3):
            gradients = [np.zeros_like(each) for each in own]
            for part in range(accumulate):
                x, y = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(9 * step + part))
                (nn.functional.mse_loss(network(x), y) / accumulate).backward()
                found = step_in_numpy(*own, x.double().numpy(), y.double().numpy())
                gradients = [sofar + one / accumulate for sofar, one in zip(gradients, found, strict=True)]
            nn.utils.clip_grad_norm_(network.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
            watch.step(step)
            norms = [np.linalg.norm(each) for each in gradients]
            factor = rate * min(1.0, clip / (np.linalg.norm(norms) + 1e-6))
            before = own
            own = [each - factor * gradient for each, gradient in zip(own, gradients, strict=True)]
            kept.append((norms, factor, [np.linalg.norm(each) for each in before], own))
    assert [record.step for record in sink.records] == [0, 1, 2]
    for record, (norms, factor, sizes, after) in zip(sink.records, kept, strict=True):
        for layer, bias in (("first", 1), ("second", 2)):
            stats = record.module(layer).stats
            norm, size = np.hypot(norms[0], norms[bias]), np.hypot(sizes[0], sizes[bias])
            assert stats["grad_norm"] == pytest.approx(norm, rel=1e-5)
            assert stats["update_to_weight"] == pytest.approx(factor * norm / size, rel=1e-4)
        moved = {parameter.name: parameter.stats["moved"] for parameter in record.parameters}
        assert moved.keys() == set(names)
        for name, now, first in zip(names, after, start, strict=True):
            expected = np.linalg.norm(now - first) / np.linalg.norm(first)
            assert moved[name] == pytest.approx(expected, rel=1e-4)


def test_gradients_of_outputs_are_those_of_the_loops_loss(sink):
    network, optimizer = make(dropout=0.0)
    with ft.watch(network, [sink], every=1) as watch:
        train(network, optimizer, 1, watch)
    again, _ = make(dropout=0.0)
    [(x, y)] = batches(1)
    kept = {}
    for name in ("lifting", "spectral", "local", "projection"):
        again.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: (output.retain_grad(), kept.update({name: output}))[0]
        )
    nn.functional.mse_loss(again(x), y).backward()
    for name, output in kept.items():
        rms = float(output.grad.double().square().mean().sqrt())
        found = sink.records[0].module(name).stats["output_grad_rms"]
        assert found == pytest.approx(rms, rel=1e-6), name


def test_loss_accuracy_and_learning_rates_are_those_of_the_step(sink):
    network, optimizer = make()
    with ft.watch(network, [sink], every=2, optimizer=optimizer) as watch:
        losses = train(network, optimizer, 4, watch)
    record = sink.records[1]
    assert record.step == 2 and record.stage == "train"
    assert record.summary["loss"] == pytest.approx(losses[2])
    assert record.training == {"stage": "train", "forwards": 1, "dropped": 0, "learning_rates": (0.01,)}
    output = torch.randn(3, 1, 6, 6)
    target = torch.randn(3, 1, 6, 6)
    watch = ft.watch(network, [sink], every=1)
    network(torch.randn(3, 1, 6, 6))
    watch.step(0, output=output, target=target)
    watch.close()
    accuracy = sink.records[-1].accuracy.stats
    one, other = output.double().numpy(), target.double().numpy()
    assert accuracy["relative_l2"] == pytest.approx(np.linalg.norm(one - other) / np.linalg.norm(other))
    assert accuracy["output_to_target_rms"] == pytest.approx(np.linalg.norm(one) / np.linalg.norm(other))
    assert sink.records[-1].summary["loss"] is None
    bands = sink.records[-1].accuracy.bands
    assert bands.sizes == (6, 6)
    assert sum(bands.error) == pytest.approx(np.linalg.norm(one - other) ** 2)
    assert sink.records[-1].target.stats["rms"] == pytest.approx(np.sqrt((other**2).mean()))


def test_what_cannot_be_compared_is_undefined_with_the_reason(sink):
    network, _ = make()
    with ft.watch(network, [sink], every=1) as watch:
        network(torch.randn(3, 1, 6, 6))
        watch.step(0, output=torch.randn(3, 1, 6, 6), target=torch.randn(3, 6, 6))
    record = sink.records[0]
    assert set(record.accuracy.stats.values()) == {None} and record.target is None
    assert record.accuracy.reasons["relative_l2"] == (
        "the output is (3, 1, 6, 6) float32 and the target is (3, 6, 6) float32; give `step` what the loss "
        "compares"
    )


def test_the_numbers_are_those_of_a_capture_in_training_mode(sink):
    network, _ = make(dropout=0.0)
    x = batches(1)[0][0]
    captured = ft.capture(copy.deepcopy(network).eval(), x)
    network.norm.eval()
    with ft.watch(network, [sink], every=1) as watch:
        network(x)
        watch.step(0)
    for module in captured.modules:
        for key, value in module.stats.items():
            found = sink.records[0].module(module.name, module.call, module.item).stats.get(key)
            if value is not None and key != "relative_sample_variation":
                assert found == pytest.approx(value, rel=1e-5, abs=1e-12), (module.name, key)


def test_several_forwards_of_a_step_make_one_record(sink):
    network, optimizer = make()
    with ft.watch(network, [sink], every=1) as watch:
        train(network, optimizer, 2, watch, accumulate=3)
    assert [record.training["forwards"] for record in sink.records] == [3, 3]
    assert [record.summary["n_samples"] for record in sink.records] == [12, 12]
    assert [record.module("lifting").shape[0] for record in sink.records] == [12, 12]


def test_evaluation_between_steps_is_not_recorded(sink):
    network, optimizer = make()
    with ft.watch(network, [sink], every=1) as watch:
        network.eval()
        network(batches(1)[0][0])
        network.train()
        train(network, optimizer, 1, watch)
    assert sink.records[0].training["forwards"] == 1


def count_hooks(network) -> int:
    tables = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, table)) for module in network.modules() for table in tables)


def test_hooks_exist_on_due_steps_only_and_a_second_watch_replaces_the_first(sink):
    network, optimizer = make()
    first = ft.watch(network, [sink], every=2)
    second = ft.watch(network, [sink], every=2)
    assert count_hooks(network) == 1
    loader = batches(3)
    for step, (x, y) in enumerate(loader):
        nn.functional.mse_loss(network(x), y).backward()
        assert count_hooks(network) == 1 or step % 2 == 0
        optimizer.step()
        second.step(step)
        assert count_hooks(network) == 1
    first.step(3)
    second.close()
    assert count_hooks(network) == 0
    assert [record.step for record in sink.records] == [0, 2]


def test_no_activation_is_alive_after_a_step(sink):
    network, optimizer = make()
    alive = []
    network.local.register_forward_hook(lambda module, args, output: alive.append(weakref.ref(output)))
    with ft.watch(network, [sink], every=1) as watch:
        for step, (x, y) in enumerate(batches(2)):
            loss = nn.functional.mse_loss(network(x), y)
            loss.backward()
            del loss
            optimizer.step()
            watch.step(step)
            gc.collect()
            assert not any(one() is not None for one in alive)


def test_a_watched_model_can_be_copied_and_saved(sink):
    network, _ = make()
    with ft.watch(network, [sink], every=1) as watch:
        x, y = batches(1)[0]
        nn.functional.mse_loss(network(x), y).backward()
        twin = copy.deepcopy(network)
        restored = pickle.loads(pickle.dumps(network))
        torch.save(network, io.BytesIO())
        for other in (twin, restored):
            other(x)
            assert count_hooks(other) == 0
        watch.step(0)
    assert sink.records[0].training["forwards"] == 1


def test_a_parameter_that_does_not_move_is_told_exactly(sink):
    network, _ = make()
    network.local.weight.requires_grad_(False)
    network.spectral.register_parameter("scale", nn.Parameter(torch.zeros(6)))
    forgotten = [p for n, p in network.named_parameters() if n not in ("spectral.weight", "lifting.bias")]
    optimizer = torch.optim.SGD(forgotten, lr=0.1)
    with ft.watch(network, [sink], every=4) as watch:
        train(network, optimizer, 9, watch)
    for record in sink.records:
        moved = {parameter.name: parameter.stats["moved"] for parameter in record.parameters}
        assert {name for name, value in moved.items() if value == 0} == {
            "local.weight",
            "spectral.weight",
            "lifting.bias",
            "spectral.scale",
            "spectral.local.weight",
            "spectral.local.bias",
        }


class Loud(nn.Module):
    """Raises in its second forward."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls = nn.Linear(3, 3), 0

    def forward(self, x):
        self.calls += 1
        if self.calls == 3:
            raise ValueError("no")
        return self.layer(x)


def test_a_forward_that_raises_leaves_no_hook_and_the_next_one_is_measured(sink):
    network = Loud()
    with ft.watch(network, [sink], every=1) as watch:
        for step in range(4):
            try:
                network(torch.randn(2, 3))
            except ValueError:
                continue
            watch.step(step)
    assert count_hooks(network) == 0
    assert 3 in [record.step for record in sink.records]


def test_an_error_of_telemetry_is_noted_and_the_loop_goes_on(sink, monkeypatch):
    from fno_telemetry.watching import step_measurement

    def fail(*arguments, **options):
        raise RuntimeError("broken")

    monkeypatch.setattr(step_measurement, "build_record", fail)
    network, optimizer = make()
    with ft.watch(network, [sink], every=1) as watch:
        losses = train(network, optimizer, 3, watch)
    assert len(losses) == 3 and count_hooks(network) == 0
    [problem] = watch.problems
    assert problem.startswith("a step could not be measured: RuntimeError: broken")


@pytest.mark.parametrize("step", [-1, 2.0, True, "3", None])
def test_a_step_that_is_no_number_is_refused(step):
    network, _ = make()
    with ft.watch(network) as watch, pytest.raises(ft.OptionError, match="`step` is"):
        watch.step(step)


@pytest.mark.parametrize("kind", [np.int64, torch.tensor])
def test_a_step_may_be_a_number_of_numpy_or_torch(sink, kind):
    network, _ = make()
    with ft.watch(network, [sink], every=1) as watch:
        network(batches(1)[0][0])
        watch.step(kind(3))
    assert [record.step for record in sink.records] == [3]


def test_steps_that_jump_are_recorded_where_a_due_one_lies_between(sink):
    network, _ = make()
    with ft.watch(network, [sink], every=10) as watch:
        for step in range(0, 60, 7):
            network(batches(1)[0][0])
            watch.step(step)
    assert [record.step for record in sink.records] == [0, 14, 21, 35, 42, 56]


def test_the_next_step_is_recorded_on_demand(sink):
    network, _ = make()
    with ft.watch(network, [sink], every=100) as watch:
        for step in range(6):
            network(batches(1)[0][0])
            watch.step(step)
            if step == 3:
                watch.capture_now()
    assert [record.step for record in sink.records] == [0, 4]


def scaled_loop(network, watch=None, steps=4) -> list[dict[str, torch.Tensor]]:
    """Train in float16 with a scaler, and return the gradients of each step without its factor."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    found = []
    for step, (x, y) in enumerate(batches(steps)):
        with torch.autocast("cpu", torch.float16):
            loss = nn.functional.mse_loss(network(x).float(), y)
        scaler.scale(loss).backward()
        found.append({n: p.grad / scaler.get_scale() for n, p in network.named_parameters()})
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if watch is not None:
            watch(step, scaler, loss)
    return found


def make_real() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 1), nn.GELU(), nn.Conv2d(4, 1, 1))


@pytest.mark.parametrize("gives_scaler", [True, False])
def test_scaled_gradients_are_recorded_without_the_factor_or_not_at_all(sink, gives_scaler):
    expected = scaled_loop(make_real())
    network, scaler = make_real(), None
    watching: list[ft.Watch] = []

    class Lent:
        """The scaler that the loop makes only later."""

        def get_scale(self) -> float:
            return scaler.get_scale()

    def step(number, own, loss):
        watching[0].step(number, loss=loss)

    watching.append(ft.watch(network, [sink], every=1, scaler=Lent() if gives_scaler else None))
    original = torch.amp.GradScaler.scale

    def scale(self, value):
        nonlocal scaler
        scaler = self
        return original(self, value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.amp.GradScaler, "scale", scale)
        scaled_loop(network, step)
    watching[0].close()
    assert [record.step for record in sink.records] == [0, 1, 2, 3]
    for record, gradients in zip(sink.records, expected, strict=True):
        layer = record.module("2")
        if gives_scaler:
            norm = math.hypot(*(float(gradients[f"2.{kind}"].norm()) for kind in ("weight", "bias")))
            assert layer.stats["grad_norm"] == pytest.approx(norm, rel=1e-5)
            assert layer.stats["output_grad_rms"] > 0
        else:
            for key in ("grad_norm", "output_grad_rms"):
                assert layer.stats[key] is None and "give the scaler" in layer.reasons[key]


@pytest.mark.parametrize(
    "options",
    [{"every": 0}, {"every": lambda step: 1 // step}, {"budget": "lite"}, {"keep": -1}, {"statistics": [3]}],
    ids=["every", "a function that raises", "budget", "keep", "statistics"],
)
def test_a_watch_that_cannot_be_made_leaves_the_earlier_one(sink, options):
    network, _ = make()
    opened = InMemorySink()
    with ft.watch(network, [sink], every=1) as watch:
        with pytest.raises(ft.OptionError):
            ft.watch(network, [opened], **options)
        assert opened.run is None
        network(batches(1)[0][0])
        watch.step(0)
    assert [record.step for record in sink.records] == [0]
