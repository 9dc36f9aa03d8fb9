"""The sketch: exact where it can be, within its stated error everywhere, the same on every path."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from fno_telemetry.statistics import sketch as sketches
from fno_telemetry.statistics.activation import Activation, Layout
from fno_telemetry.statistics.bins import bins
from fno_telemetry.statistics.contract import Known
from fno_telemetry.statistics.sketch import BINS, RELATIVE_ERROR, Sketch, magnitude_quantiles, sketch
from fno_telemetry.statistics.values import Values

FIELDS = ("counts", "shift", "start", "low", "high", "below", "above")


def _normal(count: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(count), dtype=torch.float64).to(dtype)


DATA = {
    "normal": _normal(5000),
    "several blocks": _normal(700_000),
    "positive": _normal(5000).abs(),
    "negative": -_normal(5000).abs(),
    "relu": _normal(5000).clamp(min=0),
    "narrow": 1 + 1e-5 * _normal(5000),
    "narrow and negative": -1 - 1e-5 * _normal(5000),
    "zeros of both signs": torch.tensor([0.0, -0.0, 0.0]),
    "subnormal": _normal(500) * 1e-42,
    "subnormal beside normal": torch.cat((_normal(50), _normal(50) * 1e-42)),
    "extremes": torch.tensor([3.4028234e38, -3.4028234e38, 1e-45, -1e-45, 0.0]),
    "float64": _normal(5000, torch.float64) * 1e-30,
    "beyond float32": _normal(5000, torch.float64) ** 21 * 1e36,
    "below float32": _normal(500, torch.float64) * 1e-60,
    "all beyond float32": torch.tensor([1e300, -1e300, -1e299], dtype=torch.float64),
    "one": torch.tensor([2.5]),
    "empty": torch.empty(0),
}
every_data = pytest.mark.parametrize("name", DATA)


def _sketch(values: torch.Tensor) -> Sketch:
    return sketch(values, None, values.dtype)


def _assert_same(found: Sketch, expected: Sketch) -> None:
    for field in FIELDS:
        assert torch.equal(getattr(found, field), getattr(expected, field)), field
    assert found.spare == expected.spare
    assert found.counts.dtype == torch.int64 and found.counts.shape == (BINS,)


@every_data
@pytest.mark.parametrize("holes", [False, True])
def test_the_path_for_devices_counts_what_the_path_for_the_host_counts(name: str, holes: bool) -> None:
    values = DATA[name]
    finite = torch.ones(values.shape, dtype=torch.bool)
    if holes:
        finite[::3] = False
    host = sketch(values, finite, values.dtype)
    zeroed = torch.where(finite, values, 0)
    device = sketches._sketch_on_device(sketches._patterns(zeroed), finite, host.spare)
    _assert_same(device, host)
    if not holes:
        unmasked = sketches._sketch_on_device(sketches._patterns(values), None, host.spare)
        _assert_same(unmasked, host)


@pytest.mark.parametrize("block", [1, 7, 4999])
def test_blocks_of_any_size_give_the_same_sketch(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = DATA["normal"][:300]
    expected = _sketch(values)
    monkeypatch.setattr(sketches, "_DEVICE_BLOCK", block)
    _assert_same(_sketch(values), expected)
    _assert_same(sketches._sketch_on_device(sketches._patterns(values), None, 0), expected)


@every_data
def test_every_value_lies_in_its_bin_and_every_count_is_exact(name: str) -> None:
    values = DATA[name]
    found = bins(_sketch(values), int((values == 0).sum()))
    exact = values.double().numpy()
    narrow = values.float().double().numpy()
    assert found.below == (narrow == -np.inf).sum() and found.above == (narrow == np.inf).sum()
    assert (found.lower <= found.upper).all() and (found.upper[:-1] < found.lower[1:]).all()
    held = exact[np.isfinite(narrow)]
    underflow = (held != 0) & (abs(held) < 2.0**-149)
    held = np.where(underflow, np.copysign(2.0**-149, held), held).astype(np.float32).astype(np.float64)
    places = np.searchsorted(found.upper, held)
    assert (found.lower[places] <= held).all()
    assert np.bincount(places, minlength=found.counts.size).tolist() == found.counts.tolist()
    assert int(_sketch(values).negative_count()) == (exact < 0).sum()


@every_data
def test_the_stated_error_bounds_every_order_statistic(name: str) -> None:
    values = DATA[name]
    found = bins(_sketch(values), int((values == 0).sum()))
    assert found.magnitudes().relative_error <= RELATIVE_ERROR < 0.01
    for sorted_values, one in (
        (values.sort().values, found),
        (values.abs().sort().values, found.magnitudes()),
    ):
        for permille in (1, 10, 250, 500, 900, 999, 1000):
            rank = max(-(-values.numel() * permille // 1000), 1)
            [value] = one.quantiles(permille)
            if not values.numel() or abs(sorted_values[rank - 1].float()) == math.inf:
                assert value is None
                continue
            expected = float(sorted_values[rank - 1])
            assert value is not None
            assert abs(value - expected) <= found.magnitudes().relative_error * abs(expected) + 2.0**-127


def test_bfloat16_and_narrow_ranges_are_exact() -> None:
    for values in (_normal(5000, torch.bfloat16), _normal(5000).abs().to(torch.float16), DATA["narrow"]):
        one = Values().measure(Activation(values, Layout(None, None))).sketch
        found = bins(one, int((values == 0).sum()))
        unique, counts = np.unique(values.double().numpy(), return_counts=True)
        if found.magnitudes().relative_error == 0:
            assert found.middle.tolist() == unique.tolist()
            assert found.counts.tolist() == counts.tolist()
    bfloat = Values().measure(Activation(_normal(5000, torch.bfloat16), Layout(None, None))).sketch
    assert bins(bfloat, 0).magnitudes().relative_error == 0
    single = _sketch(1 + torch.arange(1000) * 2.0**-23)
    assert bins(single, 0).magnitudes().relative_error == 0 and int((single.counts == 1).sum()) == 1000


def test_values_that_had_to_be_rounded_say_so() -> None:
    values = torch.tensor([1 + 2.0**-25], dtype=torch.float64)
    found = bins(_sketch(values), 0)
    [value] = found.quantiles(500)
    assert value is not None and value != float(values)
    assert abs(value - float(values)) <= found.magnitudes().relative_error * float(values)


@every_data
def test_quantiles_of_magnitudes_are_those_of_torch(name: str) -> None:
    values = DATA[name]
    found = magnitude_quantiles(_sketch(values), (0, 1, 50, 95, 99, 100)).tolist()
    magnitudes = values.double().abs().numpy()
    if magnitudes.size == 0:
        assert all(math.isnan(value) for value in found)
        return
    for percent, value in zip((0, 1, 50, 95, 99, 100), found, strict=True):
        lower, upper = (np.percentile(magnitudes, percent, method=m) for m in ("lower", "higher"))
        if upper > np.finfo(np.float32).max.item():
            assert math.isnan(value) or lower < upper
        else:
            expected = np.percentile(magnitudes, percent)
            assert abs(value - expected) <= RELATIVE_ERROR * expected + 2.0**-126


def test_quantiles_and_order_statistics_agree() -> None:
    values = _normal(5001) * torch.linspace(1e-3, 1e3, 5001)  # odd: the median is an element
    one = _sketch(values)
    [median] = bins(one, 0).magnitudes().quantiles(500)
    assert median is not None
    assert float(magnitude_quantiles(one, (50,))) == pytest.approx(median, rel=2 * RELATIVE_ERROR)


def test_quantiles_of_few_values_interpolate() -> None:
    one = (
        Values()
        .measure(Activation(torch.tensor([-1.0, 3.0], dtype=torch.bfloat16), Layout(None, None)))
        .sketch
    )
    assert magnitude_quantiles(one, (50, 95)).tolist() == pytest.approx([2.0, 2.9])


@every_data
def test_extremes_known_beforehand_change_nothing(name: str) -> None:
    values = DATA[name]
    if values.numel():
        _assert_same(sketch(values, None, values.dtype, tuple(torch.aminmax(values))), _sketch(values))


def test_denormals_flushed_by_the_host_program_lose_no_element() -> None:
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormals")
    try:
        values: Any = torch.tensor([1e-42, -1e-42, 0.0, 1.0])
        measured = Values().measure(Activation(values, Layout(None, None)))
        summary = Values().summarize(measured, Known())
        assert summary.histogram is not None and summary.log_histogram is not None
        counted = summary.histogram
        assert sum(counted.counts) + counted.below + counted.above == 4
        assert (
            summary.log_histogram.zeros + sum(summary.log_histogram.counts) + summary.log_histogram.below == 4
        )
    finally:
        torch.set_flush_denormal(False)
