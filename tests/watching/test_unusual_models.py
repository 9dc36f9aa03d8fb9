"""Models with hooks of their own, transforms over the samples, targets of another shape: all are recorded."""

import pytest
import torch
from torch import nn

import fno_telemetry as ft
from fno_telemetry.testing.in_memory_sink import InMemorySink


def watch_two_steps(model: nn.Module, x: torch.Tensor) -> tuple[InMemorySink, list[str], list[torch.Tensor]]:
    sink, outputs = InMemorySink(), []
    with ft.watch(model, [sink], every=1) as watch:
        for step in range(2):
            output = model(x)
            loss = output.square().mean()
            loss.backward()
            model.zero_grad()
            watch.step(step, loss=loss, output=output, target=torch.zeros_like(output))
            outputs.append(output.detach())
    return sink, [str(problem) for problem in watch.problems], outputs


def test_a_hook_that_adds_a_channel_runs_once_in_each_forward() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 1))
    model.register_forward_pre_hook(lambda module, args: (torch.cat([args[0], args[0][:, :1]], 1),))
    x = torch.rand(4, 2)
    expected = model(x).detach()
    sink, problems, outputs = watch_two_steps(model, x)
    assert problems == [] and [record.step for record in sink.records] == [0, 1]
    assert all(torch.equal(output, expected) for output in outputs)
    assert sink.records[0].module("0").shape == (4, 5)


class Mixing(nn.Module):
    """A spectral layer whose forward transform runs over the given axes."""

    def __init__(self, *axes: int) -> None:
        super().__init__()
        self.axes = axes
        self.weight = nn.Parameter(torch.rand(4, 4, 5, dtype=torch.cfloat))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = torch.fft.rfftn(x, dim=self.axes)
        mixed = torch.zeros_like(found)
        mixed[..., :5] = torch.einsum("bim,iom->bom", found[..., :5], self.weight)
        return torch.fft.irfftn(mixed, s=[x.shape[axis] for axis in self.axes], dim=self.axes)


class Network(nn.Module):
    def __init__(self, *axes: int) -> None:
        super().__init__()
        self.lifting, self.spectral = nn.Conv1d(1, 4, 1), Mixing(*axes)
        self.local, self.projection = nn.Conv1d(4, 4, 1), nn.Conv1d(4, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.lifting(x)
        return self.projection(torch.relu(self.spectral(x) + self.local(x)))


@pytest.mark.parametrize("samples", [1, 3, 8])
def test_a_transform_over_the_samples_is_measured_and_named(samples: int) -> None:
    sink, problems, _ = watch_two_steps(Network(0, -1), torch.rand(samples, 1, 16))
    assert problems == [] and len(sink.records) == 2
    record = ft.capture(Network(0, -1), torch.rand(samples, 1, 16))
    for each in (record, *sink.records):
        [warning] = each.warnings
        assert warning.startswith("spectral: the Fourier transform runs over axis 0, which holds the samples")
        assert each.errors == () and each.module("spectral").spatial_axes == (2,)
        assert each.module("spectral").stats["rms"] is not None


def test_a_transform_over_space_alone_is_not_named() -> None:
    assert ft.capture(Network(-1), torch.rand(3, 1, 16)).warnings == ()


def test_an_output_and_a_target_of_other_shapes_are_named_once_while_the_loop_runs() -> None:
    model, x = nn.Conv1d(1, 1, 1), torch.rand(3, 1, 16)
    sink = InMemorySink()
    with ft.watch(model, [sink], every=1) as watch:
        for step in range(3):
            output = model(x)
            loss = output.square().mean()
            loss.backward()
            watch.step(step, loss=loss, output=output, target=x[:, 0])
    [problem] = watch.problems
    assert str(problem).startswith("output and target are not compared: the output is (3, 1, 16) float32")
    assert len(sink.records) == 3


def test_axes_given_by_hand_may_include_the_first_one() -> None:
    given = {"lifting": ft.GivenRole("lifting", spatial_axes=(0, 2))}
    record = ft.capture(Network(-1), torch.rand(3, 1, 16), given=given)
    assert record.errors == () and record.module("lifting").spatial_axes == (0, 2)
    assert record.module("lifting").reasons["sample_variation"] == "the tensor has no sample axis"
