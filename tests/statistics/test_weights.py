"""The size of weights, and how those of spectral layers are spread over modes."""

import math
import tracemalloc

import numpy as np
import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

import fno_telemetry as ft
from fno_telemetry import plugins
from fno_telemetry.statistics.contract import Known, Undefined, summarize_state
from fno_telemetry.statistics.host_transfer import on_host
from fno_telemetry.statistics.memory_blocks import HOST_BLOCK
from fno_telemetry.statistics.mode_energies import find_modes, measure_energies
from fno_telemetry.statistics.subjects import ModeSizes, Weights
from fno_telemetry.statistics.weights import Modes, WeightNorm, compute_mode_energy

INTO, OUT, ROWS, COLUMNS = 3, 5, 6, 4


def holding(*tensors: torch.Tensor) -> nn.Module:
    module = nn.Module()
    for index, tensor in enumerate(tensors):
        module.register_parameter(f"weights{index}", nn.Parameter(tensor))
    return module


def weights(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    # Modes of very different strength.
    scale = torch.logspace(0, -4, math.prod(shape[-2:])).reshape(shape[-2:])
    return torch.randn(*shape, dtype=torch.complex64, generator=generator) * scale


def energies(tensor: torch.Tensor, axes: int = 2) -> np.ndarray:
    wide = tensor.detach().to(torch.complex128).numpy()
    return (abs(wide) ** 2).sum(axis=tuple(range(wide.ndim - axes)))


def numbers(module, channels=(INTO, OUT), available=(32, 17)) -> dict[str, float | None]:
    return dict(
        summarize_state(
            Modes(), on_host(Modes().measure(Weights(module, True, ModeSizes(channels, available))))
        ).stats
    )


def norm_of(module: nn.Module) -> float:
    return WeightNorm().summarize(WeightNorm().measure(Weights(module)), Known()).stats["weight_norm"]


DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64)
REACHES = (((64, 33), 0.0), ((6, 4), 0.0), ((3, 4), 0.5), ((3, 2), 0.75), ((1, 1), 23 / 24))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_norm_is_that_of_all_own_parameters(dtype):
    tensors = [torch.randn(4, 7).to(dtype), torch.randn(3).to(dtype)]
    wide = torch.complex128 if dtype.is_complex else torch.float64
    expected = np.linalg.norm(np.concatenate([t.to(wide).numpy().ravel() for t in tensors]))
    module = holding(*tensors)
    module.child = nn.Linear(3, 3)
    assert norm_of(module) == pytest.approx(expected, rel=1e-12)


def test_a_large_weight_leaves_no_range_and_one_that_is_not_finite_is_null():
    assert norm_of(holding(torch.full((10,), 1e38))) == pytest.approx(1e38 * math.sqrt(10), rel=1e-6)
    for size in (1e-200, 1e200):
        pair = [torch.full((5,), size, dtype=torch.float64) for _ in range(2)]
        assert norm_of(holding(*pair)) == pytest.approx(size * math.sqrt(10), rel=1e-12)
    summary = WeightNorm().summarize(
        WeightNorm().measure(Weights(holding(torch.tensor([1.0, math.nan])))), Known()
    )
    assert summary.stats == {"weight_norm": None}
    assert "not finite" in summary.reasons["weight_norm"]


def test_a_module_without_parameters_has_no_norm():
    assert WeightNorm().measure(Weights(nn.Sequential(nn.Linear(2, 2)))) is None


def test_a_parametrised_weight_counts_as_it_is_used():
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 4, bias=False)).eval()
    assert norm_of(layer) == pytest.approx(float(layer.weight.detach().double().norm()), rel=1e-6)


@pytest.mark.parametrize("form", ["complex", "transposed", "real pairs", "in a list", "factorised"])
def test_modes_are_found_whatever_the_form_of_the_weights(form):
    dense = weights(INTO, OUT, ROWS, COLUMNS)
    module = nn.Module()
    if form == "real pairs":
        module = holding(torch.view_as_real(dense))
    elif form == "in a list":
        module.weight = nn.ParameterList([nn.Parameter(dense)])
    elif form == "factorised":
        module.weight = Factorised(dense)
    else:
        module = holding(dense.transpose(0, 1) if form == "transposed" else dense)
    e = energies(dense).ravel()
    found = numbers(module)
    assert found["effective_modes"] == pytest.approx(e.sum() ** 2 / (e**2).sum(), rel=1e-6)
    assert found["dead_mode_fraction"] == 0
    assert found["unused_weight_fraction"] == 0


class Factorised(nn.Module):
    """A tensor as the product of two, as in libraries of tensor factorisations."""

    def __init__(self, dense: torch.Tensor) -> None:
        super().__init__()
        u, s, v = torch.linalg.svd(dense.flatten(1), full_matrices=False)
        self.left, self.right = nn.Parameter(u * s), nn.Parameter(v)
        self.size = dense.shape

    def to_tensor(self) -> torch.Tensor:
        return (self.left @ self.right).reshape(self.size)


PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128)


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("form", ["contiguous", "transposed", "every second"])
@pytest.mark.parametrize("dtype", [*PRECISIONS, torch.complex32])
def test_energies_are_right_in_every_precision_without_a_large_copy(dtype, form):
    generator = torch.Generator().manual_seed(0)
    step = 2 if form == "every second" else 1
    pairs = torch.randn(40, 24 * step, 12, 8, 2, generator=generator)
    if dtype.is_complex:
        held = torch.view_as_complex(pairs).to(dtype)
        exact = torch.view_as_real(held).double()
    else:
        held = pairs.to(dtype)
        exact = held.double()
    if form == "transposed":
        held, exact = held.transpose(0, 1), exact.transpose(0, 1)
    held, exact = held[:, ::step], exact[:, ::step]
    subject = Weights(holding(held), True, ModeSizes((40, 24), (30, 20)))
    found = []

    def measure():
        found.append(measure_energies(find_modes(held, (40, 24), 2), 2))

    with torch.no_grad():
        # Two blocks: one that is widened, and one for results of each of its rows.
        assert largest_allocation(measure) <= 2 * 8 * HOST_BLOCK < exact.numel() * 8
        assert np.allclose(found[0], exact.square().sum((0, 1, 4)), rtol=1e-6)
        assert float(WeightNorm().measure(subject).whole) == pytest.approx(float(exact.norm()), rel=1e-6)
        assert np.allclose(Modes().measure(subject).energies[0], found[0], rtol=1e-12)


def largest_allocation(function):
    """Return the largest number of bytes that torch allocates at once, or NumPy in all, in a second call."""
    function()
    tracemalloc.start()
    try:
        function()
        numpys = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        function()
    return max([numpys, *(event.self_cpu_memory_usage for event in profiled.events())])


def test_layers_without_mixing_have_modes_too():
    dense = weights(INTO, ROWS, COLUMNS)
    e = energies(dense).ravel()
    found = numbers(holding(dense), channels=(INTO, INTO))
    assert found["effective_modes"] == pytest.approx(e.sum() ** 2 / (e**2).sum(), rel=1e-6)


@pytest.mark.parametrize("strong", [1, 2, 7, 24])
def test_k_equally_strong_modes_give_k(strong):
    dense = torch.zeros(INTO, OUT, ROWS * COLUMNS, dtype=torch.complex64)
    dense[:, :, :strong] = 0.5 + 0.5j
    found = numbers(holding(dense.reshape(INTO, OUT, ROWS, COLUMNS)))
    assert found["effective_modes"] == pytest.approx(strong)
    assert found["dead_mode_fraction"] == pytest.approx(1 - strong / 24)


def test_a_mode_is_dead_at_a_millionth_of_the_largest_amplitude():
    dense = torch.ones(INTO, OUT, 2, 2, dtype=torch.complex64)
    dense[:, :, 0, 1], dense[:, :, 1, 0] = 0.9e-6, 1.1e-6
    assert numbers(holding(dense))["dead_mode_fraction"] == 0.25


def test_positive_and_negative_rows_in_two_tensors_are_one_set_of_modes():
    positive, negative = weights(INTO, OUT, 3, 4), weights(INTO, OUT, 3, 4, seed=1) * 10
    state = on_host(
        Modes().measure(
            Weights(holding(positive, negative, torch.rand(OUT)), True, ModeSizes((INTO, OUT), (16, 9)))
        )
    )
    e = np.concatenate([energies(positive), energies(negative)])
    found = summarize_state(Modes(), state).stats
    assert found["effective_modes"] == pytest.approx(e.sum() ** 2 / (e**2).sum(), rel=1e-6)
    spread = compute_mode_energy(state)
    assert spread.sizes == (6, 4)
    assert spread.axis_shares[0] == pytest.approx(tuple(e.sum(1) / e.sum()))
    assert spread.axis_shares[1] == pytest.approx(tuple(e.sum(0) / e.sum()))


@pytest.mark.parametrize(("available", "unused"), REACHES)
def test_what_the_resolution_does_not_reach_is_unused(available, unused):
    assert numbers(holding(weights(INTO, OUT, ROWS, COLUMNS)), available=available)[
        "unused_weight_fraction"
    ] == pytest.approx(unused)


def test_weights_that_are_no_modes_are_undefined_and_never_guessed():
    tensors = [torch.rand(2, 4, 3, 3), torch.rand(OUT, 1, 1), torch.rand(7, 7, 4, 4) * 1j]
    # Matrices between channels, which hold no modes.
    tensors += [torch.rand(INTO, OUT) * 1j, torch.rand(INTO) * 1j, torch.rand(INTO, OUT, 2)]
    for tensor in tensors:
        state = Modes().measure(Weights(holding(tensor), True, ModeSizes((INTO, OUT), (32, 17))))
        assert isinstance(state, Undefined)
        summary = summarize_state(Modes(), state)
        assert set(summary.stats.values()) == {None}
        assert "could not be recognised" in summary.reasons["effective_modes"]


@pytest.mark.parametrize("shape", [(6, 6, 6), (6, 6, 6, 6), (6, 6, 4)])
def test_weights_whose_sizes_can_be_read_in_several_ways_are_not_guessed(shape):
    # Modes first or last; with two axes of modes, a weight for one axis or for each channel.
    axes = 1 if shape == (6, 6, 6) else 2
    subject = Weights(holding(weights(*shape)), True, ModeSizes((6, 6), (16, 9)[:axes]))
    assert isinstance(Modes().measure(subject), Undefined)


def test_zero_weights_and_weights_that_are_not_finite_have_no_spread_but_known_use():
    for value, reason in ((0.0, "zero"), (math.inf, "not finite")):
        module = holding(torch.full((INTO, OUT, 4, 4), value, dtype=torch.complex64))
        state = Modes().measure(Weights(module, True, ModeSizes((INTO, OUT), (2, 4))))
        summary = summarize_state(Modes(), state)
        assert summary.stats["effective_modes"] is summary.stats["dead_mode_fraction"] is None
        assert reason in summary.reasons["effective_modes"]
        assert summary.stats["unused_weight_fraction"] == 0.5
        assert compute_mode_energy(state) is None


def test_the_default_hybrid_does_not_use_most_of_its_deepest_encoder():
    architecture = plugins.load("architectures", "hybrid")
    network = architecture.build(**architecture.defaults(1, 64) | {"hidden_channels": 4})
    record = ft.capture(network, torch.rand(2, 1, 64, 64))
    stats = record.module("encoder_blocks.3.spectral").stats
    assert stats["unused_weight_fraction"] == pytest.approx(1 - 8 * 5 / 12**2)
    assert record.module("encoder_blocks.0.spectral").stats["unused_weight_fraction"] == 0
    assert record.module("encoder_blocks.3.spectral").mode_energy.sizes == (12, 12)


def test_a_capture_weighs_each_module_once_and_survives_the_report(small_network, images, tmp_path):
    network = small_network("fno")
    record = ft.capture(network, [images[:3], images[3:]])
    conv = network.fno_blocks[0].local_conv
    expected = math.sqrt(sum(float((p.detach().double() ** 2).sum()) for p in conv.parameters()))
    assert record.module("fno_blocks.0.local_conv").stats["weight_norm"] == pytest.approx(expected, rel=1e-9)
    assert "weight_norm" not in record.module("fno_blocks.0").stats
    assert "effective_modes" not in record.module("fno_blocks.0.local_conv").stats
    ft.JsonFile(tmp_path / "report.json").write(record)
    assert ft.load_report(tmp_path / "report.json") == record


def test_weights_that_cannot_be_read_are_an_error_of_theirs_and_cost_nothing_else(images):
    class Broken(nn.Conv2d):
        def __init__(self) -> None:
            super().__init__(1, 2, 3)
            self.factor = nn.Module()
            self.factor.to_tensor = self.fail

        def fail(self) -> torch.Tensor:
            raise RuntimeError("no such factorisation")

    record = ft.capture(nn.Sequential(Broken()), images)
    assert record.module("0").stats["rms"] is not None
    assert [dict(error) for error in record.errors] == [
        {"name": "0/weight_norm", "reason": "RuntimeError: no such factorisation"}
    ]
