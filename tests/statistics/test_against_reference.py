"""Every statistic of a tensor equals the slow reference, whatever its precision, shape, memory and values."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fno_telemetry.statistics.activation import Activation, Layout
from fno_telemetry.statistics.channels import Channels
from fno_telemetry.statistics.contract import Known, Summary, keys_of, summarize_state
from fno_telemetry.statistics.effective_rank import EffectiveRank
from fno_telemetry.statistics.samples import Samples
from fno_telemetry.statistics.spectrum import Spectrum
from fno_telemetry.statistics.values import Values
from fno_telemetry.statistics.zero_samples import ZeroSamples

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128]
WHOLE = [torch.float32, torch.complex64]
SOME_LAYOUTS = ["one", "empty", "B,C,L", "B,H,W,C"]
SOME_KINDS = ["normal", "with NaN and inf", "all zero"]
FLOAT32_MAX = float(np.finfo(np.float32).max)

LAYOUTS = {
    "scalar": ((), Layout(None, None)),
    "one": ((1,), Layout(None, None)),
    "one sample": ((1,), Layout(0, None)),
    "empty": ((0, 3, 8, 8), Layout(0, 1, (2, 3))),
    "empty in space": ((2, 3, 0), Layout(0, 1, (2,))),
    "B,C": ((5, 7), Layout(0, 1)),
    "B,N,C": ((3, 12, 4), Layout(0, 2, (1,))),
    "B,C,L": ((3, 4, 17), Layout(0, 1, (2,))),
    "B,C,H,W even": ((3, 2, 8, 12), Layout(0, 1, (2, 3))),
    "B,C,H,W odd": ((2, 3, 9, 7), Layout(0, 1, (2, 3))),
    "B,H,W,C": ((2, 6, 8, 3), Layout(0, 3, (1, 2))),
    "no sample": ((3, 8, 10), Layout(None, 0, (1, 2))),
    "B,C,T,H,W over H,W": ((2, 2, 3, 6, 5), Layout(0, 1, (3, 4))),
    "B,C,D,H,W": ((2, 2, 4, 5, 6), Layout(0, 1, (2, 3, 4))),
}

Maker = Callable[[torch.Tensor], torch.Tensor]


def _sprinkled(noise: torch.Tensor) -> torch.Tensor:
    flat = noise.clone().reshape(-1)
    for place, value in enumerate((math.nan, math.inf, -math.inf, 0.0, -0.0)):
        flat[place * 5 % max(flat.numel(), 1) :: 41] = value
    return flat.reshape(noise.shape)


KINDS: dict[str, Maker] = {
    "normal": lambda x: x,
    "with NaN and inf": _sprinkled,
    "all NaN": lambda x: x * math.nan,
    "all zero": lambda x: x * 0,
    "all equal": lambda x: torch.full_like(x, 0.7),
    "1e38": lambda x: x.clamp(-2, 2) * 1e38,
    "1e-38": lambda x: x * 1e-38,
    "subnormal": lambda x: x * 1e-42,
    "mean 1e4 times std": lambda x: 1e4 + x,
    "nearly constant magnitude": lambda x: torch.sign(x) * (1 + 1e-3 * x),
    "positive with zeros": lambda x: x.clamp(min=0),
    "wide": lambda x: x**21,
    "1e300": lambda x: x * 1e300,
    "1e-200": lambda x: x * 1e-200,
}


def _tensor(kind: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(len(shape) + sum(shape))
    parts = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2)]
    if not dtype.is_complex:
        return KINDS[kind](parts[0]).to(dtype)
    return torch.complex(*(KINDS[kind](part) for part in parts)).to(dtype)


def _assert_complete(summary: Summary, statistic: Any) -> None:
    assert tuple(summary.stats) == keys_of(statistic)
    undefined = {key for key, value in summary.stats.items() if value is None}
    assert set(summary.reasons) == undefined
    assert all(isinstance(reason, str) and reason for reason in summary.reasons.values())
    assert all(math.isfinite(value) for value in summary.stats.values() if value is not None)


def _assert_values(summary: Summary, expected: dict[str, Any], dtype: torch.dtype) -> None:
    stats = summary.stats
    exact = ["count", "nan_count", "inf_count", "finite_fraction", "zero_fraction", "negative_fraction"]
    if not dtype.is_complex:
        exact += ["min", "max"]
    for key in exact:
        assert stats[key] == expected[key], key
    # |z| of a complex64 is a float32, with what that resolves among subnormals.
    tolerance = 1e-6 * (expected["rms"] or 0) + (2.0**-148 if dtype == torch.complex64 else 0)
    for key in ("mean", "std", "rms", "abs_mean", "abs_std", "min", "max"):
        assert _same(stats[key], expected[key], tolerance), key
    if summary.sketch is None:
        return
    assert summary.sketch.relative_error <= 0.004
    bound = summary.sketch.relative_error
    assert bound == 0 or dtype != torch.bfloat16
    for key in (key for key in stats if key.lstrip("abs_").startswith("p")):
        if expected[key] is not None and abs(expected[key]) > FLOAT32_MAX:
            assert stats[key] is None, key
        else:
            # Below 2^-126 float32 itself gets coarse, and nothing is promised but the order of magnitude.
            assert _same(stats[key], expected[key], bound * abs(expected[key]) + 2.0**-127), key
    middle = expected["abs_p50"]
    if middle and middle > 2.0**-126 and stats["tail_ratio"] is not None:
        assert _same(stats["tail_ratio"], expected["tail_ratio"], 2.1 * bound * expected["tail_ratio"])


def _same(found: float | None, expected: float | None, tolerance: float) -> bool:
    if found is None or expected is None:
        return found is expected
    return abs(found - expected) <= tolerance


def _cases() -> list[Any]:
    """Every layout of values of every kind in single precision, and of the other precisions a part.

    How values are widened and how they are read from memory do not depend on each other: so each kind is in
    few layouts there, and each layout has few kinds.
    """
    found = []
    for name, kind, dtype in itertools.product(LAYOUTS, KINDS, DTYPES):
        if dtype in WHOLE or name in SOME_LAYOUTS or kind in SOME_KINDS:
            found.append(pytest.param(name, kind, dtype, id=f"{name}-{kind}-{str(dtype)[6:]}"))
    return found


@pytest.mark.parametrize(("name", "kind", "dtype"), _cases())
def test_every_statistic_equals_the_reference(
    name: str, kind: str, dtype: torch.dtype, reference: Any, as_array: Any
) -> None:
    shape, layout = LAYOUTS[name]
    tensor = _tensor(kind, shape, dtype)
    array = as_array(tensor)
    _assert_all(tensor, array, layout, dtype, reference)


def _assert_all(tensor: torch.Tensor, array: Any, layout: Layout, dtype: torch.dtype, reference: Any) -> None:
    activation = Activation(tensor, layout)
    summaries = {}
    known: dict[str, Any] = {}
    for statistic in (Values(), Channels(), Samples(), ZeroSamples(), EffectiveRank(), Spectrum()):
        state = statistic.measure(activation)
        summaries[statistic.name] = summary = summarize_state(statistic, state, Known(known))
        known |= summary.stats
        _assert_complete(summary, statistic)
    expected = reference.values(array)
    _assert_values(summaries["values"], expected, dtype)
    _assert_channels(summaries["channels"], *reference.channels(array, layout.channel), dtype)
    zero = summaries["zero_samples"].stats["zero_sample_fraction"]
    assert zero == reference.zero_sample_fraction(array, layout.sample)
    rms = expected["rms"]
    if rms is None or rms == 0 or 1e-150 < rms < 1e150:
        found = summaries["samples"].stats["sample_variation"]
        assert _same(found, reference.sample_variation(array, layout.sample), 1e-6)
        found = summaries["effective_rank"].stats["effective_rank"]
        expected = reference.effective_rank(array, layout.sample, layout.channel)
        assert _same(found, expected, 1e-5 * (expected or 0))
        _assert_spectrum(summaries["spectrum"], *reference.spectrum(array, layout.space))
    else:
        # The squares leave float64: undefined rather than wrong.
        assert set(summaries["samples"].stats.values()) == {None}
        assert set(summaries["effective_rank"].stats.values()) == {None}
        assert set(summaries["spectrum"].stats.values()) == {None}


def _assert_channels(
    summary: Summary, stats: dict[str, Any], sizes: list[float | None] | None, dtype: torch.dtype
) -> None:
    for key, expected in stats.items():
        if key.endswith("_fraction"):
            assert summary.stats[key] == expected, key
    rms = stats["channel_rms_max"]
    tolerance = 1e-6 * (rms or 0) + (2.0**-148 if dtype == torch.complex64 else 0)
    for key in ("channel_rms_min", "channel_rms_max"):
        assert _same(summary.stats[key], stats[key], tolerance), key
    smallest, ratio = stats["channel_rms_min"], stats["channel_rms_ratio"]
    if smallest and smallest > 2.0**-126:
        assert _same(summary.stats["channel_rms_ratio"], ratio, 3e-6 * ratio)
    assert (summary.channel_rms is None) == (sizes is None)
    for found, expected in zip(summary.channel_rms or (), sizes or (), strict=True):
        assert _same(found, expected, tolerance)


def _assert_spectrum(summary: Summary, stats: dict[str, Any], bands: dict[str, Any] | None) -> None:
    for key in ("dc_fraction", "low_frequency_fraction", "high_frequency_fraction", "spectral_centroid"):
        assert _same(summary.stats[key], stats[key], 2e-6), key
    expected = stats["one_sidedness"]
    assert _same(summary.stats["one_sidedness"], expected, 1e-5 * max(expected or 0, 1))
    if bands is None:
        assert summary.spectrum is None
        return
    assert summary.spectrum is not None
    np.testing.assert_allclose(summary.spectrum.bands, bands["bands"], atol=2e-6)
    np.testing.assert_allclose(summary.spectrum.axis_bands, bands["axis_bands"], atol=2e-6)
    assert math.isclose(sum(summary.spectrum.bands), 1, rel_tol=1e-12)
    assert len(summary.spectrum.band_edges) == len(summary.spectrum.bands) + 1
    assert all(len(row) + 1 == len(summary.spectrum.axis_band_edges) for row in summary.spectrum.axis_bands)


MEMORY: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "transposed": lambda x: x.transpose(2, 3),
    "sliced": lambda x: x[1:, ::2, 1:-1, ::3],
    "expanded": lambda x: x[:, :1].expand(-1, 5, -1, -1),
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "flipped": lambda x: x.flip(0)[:, :, ::2],
    "a view of its conjugate": lambda x: x.conj() if x.is_complex() else x,
    "an imaginary part": lambda x: torch.complex(x, x + 1).conj().imag if x.dtype == torch.float32 else x,
}


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("kind", ["normal", "with NaN and inf"])
def test_memory_order_does_not_matter(
    memory: str, kind: str, dtype: torch.dtype, reference: Any, as_array: Any
) -> None:
    tensor = MEMORY[memory](_tensor(kind, (3, 4, 8, 10), dtype))
    _assert_all(tensor, as_array(tensor), Layout(0, 1, (2, 3)), dtype, reference)


@pytest.mark.parametrize("shape", [(300, 1000), (2, 40, 80, 80), (1, 1, 600, 500)])
def test_tensors_of_several_blocks_equal_the_reference(
    shape: tuple[int, ...], reference: Any, as_array: Any
) -> None:
    generator = torch.Generator().manual_seed(3)
    offsets = torch.arange(shape[0]).reshape(-1, *(1 for _ in shape[1:]))
    tensor = torch.randn(shape, generator=generator) + 100 * offsets
    tensor.view(-1)[12345] = math.nan
    array = as_array(tensor)
    layout = Layout(0, 1, (2, 3) if len(shape) == 4 else ())
    stats = summarize_state(Values(), Values().measure(Activation(tensor, layout)))
    _assert_values(stats, reference.values(array), tensor.dtype)
    activation = Activation(tensor, layout)
    variation = summarize_state(Samples(), Samples().measure(activation)).stats["sample_variation"]
    finite = np.isfinite(array)
    compared = finite & (finite.sum(0) > 1)
    means = np.where(compared, array, 0).sum(0) / np.maximum(compared.sum(0), 1)
    varying = (np.where(compared, array - means, 0) ** 2).sum() / max((array[compared] ** 2).sum(), 1)
    assert _same(variation, np.sqrt(varying) if shape[0] > 1 else None, 1e-6)
    if layout.space:
        grid, dc, fields = reference.energies(array, layout.space)
        energy = activation.host_energy
        state: Any = Spectrum().measure(activation)
        found = float(state.total)
        assert energy.fields == fields
        assert math.isclose(found, grid.sum(), rel_tol=1e-6)
        assert math.isclose(energy.dc, dc, rel_tol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [2**18, 2**19 + 5])
def test_values_of_large_tensors_are_as_good_as_those_of_small_ones(
    kind: str, count: int, reference: Any, as_array: Any
) -> None:
    tensor = _tensor(kind, (count,), torch.float32)
    summary = summarize_state(Values(), Values().measure(Activation(tensor, Layout(None, None))))
    _assert_values(summary, reference.values(as_array(tensor)), tensor.dtype)


@pytest.mark.parametrize("count", [3, 1001, 2**18 + 7])
@pytest.mark.parametrize("value", [0.1, -0.7, 1e-200, -1e300])
def test_values_that_are_all_equal_have_no_spread_at_all(value: float, count: int) -> None:
    tensor = torch.full((count,), value, dtype=torch.float64)
    halves = [Values().measure(Activation(part, Layout(None, None))) for part in (tensor[:-1], tensor)]
    stats = summarize_state(Values(), halves[0].merge(halves[1])).stats
    assert (stats["mean"], stats["std"]) == (value, 0)
    assert (stats["abs_mean"], stats["abs_std"], stats["rms"]) == (abs(value), 0, abs(value))


@pytest.mark.parametrize("mean", [1e2, 1e4, 1e6])
def test_a_mean_far_from_zero_takes_no_digits_from_the_spread(mean: float) -> None:
    tensor = torch.randn(2**18, generator=torch.Generator().manual_seed(0)) + mean
    summary = summarize_state(Values(), Values().measure(Activation(tensor, Layout(None, None))))
    expected = tensor.double().numpy()
    assert summary.stats["std"] == pytest.approx(expected.std(), rel=1e-9)
    assert summary.stats["abs_std"] == pytest.approx(expected.std(), rel=1e-9)
    assert summary.stats["mean"] == pytest.approx(expected.mean(), rel=1e-12)


def test_counts_stay_exact_beyond_what_float32_can_count() -> None:
    count = 2**24 + 1
    tensor = torch.arange(count, dtype=torch.float32).remainder_(1021).sub_(3)
    tensor[:7] = math.nan
    tensor[7:10] = -math.inf
    summary = summarize_state(Values(), Values().measure(Activation(tensor, Layout(None, None))))
    numbers = np.arange(count)[10:] % 1021 - 3
    held = np.bincount(numbers + 3)
    stats = summary.stats
    assert (stats["count"], stats["nan_count"], stats["inf_count"]) == (count, 7, 3)
    assert stats["zero_fraction"] == held[3] / numbers.size
    assert stats["negative_fraction"] == held[:3].sum() / numbers.size
    rms = math.sqrt((numbers.astype(float) ** 2).mean())
    for key, expected in (("mean", numbers.mean()), ("std", numbers.std()), ("rms", rms)):
        assert _same(stats[key], expected, 1e-6 * rms)
    assert summary.sketch is not None
    for percent in (1, 5, 50, 95, 99):
        rank = -(-numbers.size * percent // 100)
        expected = int(np.searchsorted(held.cumsum(), rank)) - 3
        assert _same(stats[f"p{percent:02d}"], expected, summary.sketch.relative_error * abs(expected))
    assert summary.histogram is not None and summary.log_histogram is not None
    counted = sum(summary.histogram.counts) + summary.histogram.below + summary.histogram.above
    assert counted == numbers.size
    logarithmic = summary.log_histogram
    assert logarithmic.zeros == held[3]
    assert sum(logarithmic.counts) + logarithmic.zeros == numbers.size


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.float32, torch.float64], ids=["float16", "float32", "float64"]
)
def test_percentiles_are_those_of_numpy_within_the_stated_error(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(7)
    tensor = (torch.randn(4999, generator=generator).exp() * 3).to(dtype)
    summary = summarize_state(Values(), Values().measure(Activation(tensor, Layout(None, None))))
    assert summary.sketch is not None
    for percent in (1, 5, 50, 95, 99):
        expected = np.quantile(tensor.double().numpy(), percent / 100, method="inverted_cdf")
        found = summary.stats[f"p{percent:02d}"]
        assert _same(found, expected, summary.sketch.relative_error * expected)
