"""Histograms: every finite element is counted once, on edges that mean what they say."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fno_telemetry.records import Histogram, LogHistogram
from fno_telemetry.statistics.activation import Activation, Layout
from fno_telemetry.statistics.contract import Summary, summarize_state
from fno_telemetry.statistics.histograms import LOG_EDGES
from fno_telemetry.statistics.values import Values


def _summary(tensor: torch.Tensor) -> Summary:
    return summarize_state(Values(), Values().measure(Activation(tensor, Layout(None, None))))


def _histograms(tensor: torch.Tensor) -> tuple[Histogram, LogHistogram]:
    summary = _summary(tensor)
    assert summary.histogram is not None and summary.log_histogram is not None
    return summary.histogram, summary.log_histogram


Maker = Callable[[torch.Tensor], torch.Tensor]
KINDS: dict[str, Maker] = {
    "normal": lambda x: x,
    "positive with zeros": lambda x: x.clamp(min=0),
    "all zero": lambda x: x * 0,
    "all equal": lambda x: torch.full_like(x, -0.7),
    "two values": lambda x: torch.where(x > 0, 5.0, -3.0),
    "far from zero": lambda x: 1e4 + x,
    "heavy tails": lambda x: x**9,
    "with NaN and inf": lambda x: torch.where(x > 1, math.nan, torch.where(x < -2, -math.inf, x)),
    "a few outliers": lambda x: torch.where(x > 3.5, 1e20, x),
    "the largest float32": lambda x: torch.where(x > 0, float(np.finfo(np.float32).max), x),
    "both largest float32": lambda x: torch.sign(x) * float(np.finfo(np.float32).max),
    "subnormal": lambda x: x * 1e-42,
    "subnormal beside normal": lambda x: torch.where(x > 0, x * 1e-42, x),
    "integers": lambda x: (x * 3).round(),
    "bfloat16": lambda x: x.to(torch.bfloat16),
    "float16": lambda x: x.to(torch.float16),
    "complex": lambda x: torch.complex(x, x.flip(0)),
}


def _finite(tensor: torch.Tensor) -> Any:
    if tensor.is_complex():
        tensor = torch.hypot(tensor.real, tensor.imag)
    array = tensor.double().numpy().ravel()
    return array[np.isfinite(array)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 50, 20000])
def test_linear_counts_are_those_of_numpy_over_the_same_edges(kind: str, count: int) -> None:
    tensor = KINDS[kind](torch.randn(count, generator=torch.Generator().manual_seed(count)))
    finite = _finite(tensor)
    if finite.size == 0:
        assert _summary(tensor).histogram is None
        return
    found, _ = _histograms(tensor)
    edges = np.array(found.edges)
    assert 1 <= len(found.counts) == edges.size - 1 <= 64
    assert (np.diff(edges) > 0).all() and np.isfinite(edges).all()
    assert found.below == (finite < edges[0]).sum()
    assert found.above == (finite >= edges[-1]).sum()
    # Edges are floats that no bin of the sketch crosses: for float32 there is nothing to round.
    places = np.searchsorted(edges, finite, side="right") - 1
    inside = (places >= 0) & (places < len(found.counts))
    assert np.bincount(places[inside], minlength=len(found.counts)).tolist() == list(found.counts)
    # At most 0.1 % on either side.
    assert max(found.below, found.above) <= math.ceil(finite.size / 1000)


def test_float64_counts_are_right_up_to_rounding_to_float32() -> None:
    tensor = torch.randn(20000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found, _ = _histograms(tensor)
    edges = np.array(found.edges)
    cumulative = np.cumsum([found.below, *found.counts])
    rounding = 2.0**-23 * abs(edges)
    least = [(tensor.numpy() < edge - slack).sum() for edge, slack in zip(edges, rounding, strict=True)]
    most = [(tensor.numpy() < edge + slack).sum() for edge, slack in zip(edges, rounding, strict=True)]
    assert (least <= cumulative).all() and (cumulative <= most).all()
    assert cumulative[-1] + found.above == tensor.numel()


@pytest.mark.parametrize("kind", KINDS)
def test_logarithmic_counts_are_right_within_the_error_of_the_sketch(kind: str) -> None:
    tensor = KINDS[kind](torch.randn(20000, generator=torch.Generator().manual_seed(3)))
    magnitudes = abs(_finite(tensor))
    _, found = _histograms(tensor)
    assert found.edges == LOG_EDGES and len(found.counts) == 64
    assert found.zeros == (magnitudes == 0).sum()
    assert sum(found.counts) + found.below + found.above + found.zeros == magnitudes.size
    decades = np.log10(magnitudes[magnitudes > 0])
    cumulative = np.cumsum([found.below, *found.counts])
    slack = 0.002  # half a bin of the sketch is 0.39 %
    for edge, counted in zip(found.edges, cumulative, strict=True):
        assert (decades < edge - slack).sum() <= counted <= (decades < edge + slack).sum()


def test_logarithmic_edges_are_quarters_of_a_decade_in_every_record() -> None:
    assert tuple(-8 + quarter / 4 for quarter in range(65)) == LOG_EDGES
    for scale in (1e-30, 1.0, 1e30):
        assert (
            _histograms(torch.randn(9, generator=torch.Generator().manual_seed(0)) * scale)[1].edges
            == LOG_EDGES
        )


def test_what_lies_beyond_float32_is_counted_outside() -> None:
    tensor = torch.tensor([-1e300, -1e300, 1.0, 2.0, 1e300, 1e-300, -1e-300, 0.0], dtype=torch.float64)
    summary = _summary(tensor)
    found, logarithmic = _histograms(tensor)
    assert (found.below, found.above) == (2, 1)
    assert sum(found.counts) == 5
    assert (logarithmic.below, logarithmic.above, logarithmic.zeros) == (2, 3, 1)
    assert sum(logarithmic.counts) == 2
    assert summary.sketch is not None
    assert (summary.sketch.underflow, summary.sketch.overflow) == (2, 3)
    assert summary.stats["negative_fraction"] == 3 / 8
    assert summary.stats["zero_fraction"] == 1 / 8
    assert (summary.stats["p01"], summary.stats["p99"]) == (None, None)
    assert summary.reasons["p99"] == "that percentile is outside the range of float32"
    everything_outside = _summary(torch.tensor([1e300], dtype=torch.float64))
    assert everything_outside.histogram is None
    assert everything_outside.log_histogram is not None and everything_outside.log_histogram.above == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), min_size=1, max_size=40))
def test_any_float32_values_are_all_counted(values: list[float]) -> None:
    tensor = torch.tensor(values, dtype=torch.float32)
    finite = _finite(tensor)
    summary = _summary(tensor)
    if finite.size == 0:
        assert summary.histogram is None and summary.log_histogram is None
        return
    found, logarithmic = _histograms(tensor)
    assert sum(found.counts) + found.below + found.above == finite.size
    assert found.below == (finite < found.edges[0]).sum()
    assert sum(logarithmic.counts) + logarithmic.below + logarithmic.above + logarithmic.zeros == finite.size
    assert logarithmic.zeros == (finite == 0).sum()
    assert summary.sketch is not None
    tiny = float(np.finfo(np.float32).tiny)
    assert summary.sketch.underflow == ((finite != 0) & (abs(finite) < tiny)).sum()
    for percent in (1, 5, 50, 95, 99):
        expected = np.sort(finite)[-(-finite.size * percent // 100) - 1]
        value = summary.stats[f"p{percent:02d}"]
        assert value is not None
        bound = summary.sketch.relative_error * abs(expected) * (1 + 1e-12) + 2.0**-127
        assert abs(value - expected) <= bound
