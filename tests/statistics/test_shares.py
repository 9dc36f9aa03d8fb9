"""Light budgets: shares are spread evenly, stated, and within their stated errors; all else is exact."""

import math

import numpy as np
import pytest
import torch

from fno_telemetry.statistics.activation import Activation, Layout
from fno_telemetry.statistics.channels import Channels
from fno_telemetry.statistics.contract import Known, merge_states, summarize_state
from fno_telemetry.statistics.samples import Samples
from fno_telemetry.statistics.shares import LIGHT_ELEMENTS, Shares, choose_shares, spread
from fno_telemetry.statistics.spectrum import Spectrum
from fno_telemetry.statistics.values import Values

LAYOUT = Layout(sample=0, channel=1, space=(2, 3))
CPU = torch.device("cpu")
OF_A_SHARE = {*(f"p{p:02d}" for p in (1, 5, 50, 95, 99)), *(f"abs_p{p}" for p in (50, 95, 99)), "tail_ratio"}


def summarize(statistic, tensor, is_light=True):
    return summarize_state(statistic, statistic.measure(activation_of(tensor, is_light)), Known())


def activation_of(tensor, is_light=True):
    shares = choose_shares(tensor.numel(), tensor.shape[0] * tensor.shape[1]) if is_light else Shares()
    return Activation(tensor, LAYOUT, shares)


def fields(*shape, seed=0):
    """Fields whose size and smoothness differ from channel to channel."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(shape, generator=generator)
    smooth = torch.nn.functional.avg_pool2d(noise, 5, 1, 2)
    share = torch.linspace(0, 1, shape[1])[:, None, None]
    return (share * noise + (1 - share) * 3 * smooth) * (0.5 + share) + 0.1


@pytest.mark.parametrize("of", [2 * LIGHT_ELEMENTS, 200_001, 1 << 20, 3_000_017])
def test_elements_are_spread_evenly(of):
    places = spread(choose_shares(of, 1).elements, of, CPU).numpy()
    assert np.all(np.diff(places) > 0)
    assert 0.99 * LIGHT_ELEMENTS < places.size <= LIGHT_ELEMENTS
    gaps = np.diff(np.concatenate(([-1], places, [of])))
    # Three lengths at most, by the three-gap theorem, each rounded up or down.
    assert gaps.max() <= 2.7 * of / places.size + 2


def test_every_column_of_a_field_is_seen():
    places = spread(choose_shares(1 << 20, 1).elements, 1 << 20, CPU).numpy()
    seen = np.bincount(places % 64, minlength=64)
    assert seen.min() > 0.9 * seen.mean()


@pytest.mark.parametrize(("of", "expected"), [(8, None), (31, None), (32, 16), (256, 32), (1024, 128)])
def test_small_tensors_are_measured_whole(of, expected):
    places = spread(choose_shares(1, of).fields, of, CPU)
    assert (places if places is None else places.numel()) == expected
    assert choose_shares(2 * LIGHT_ELEMENTS - 1, 1) == Shares()


def test_all_numbers_but_those_of_a_share_are_exact():
    tensor = torch.relu(fields(4, 32, 64, 64)) - 0.2
    for statistic in (Values(), Samples()):
        light, full = summarize(statistic, tensor), summarize(statistic, tensor, is_light=False)
        for key in full.stats.keys() - OF_A_SHARE:
            assert light.stats[key] == full.stats[key], key
    known = Known({"rms": 1.0})
    activations = [activation_of(tensor, is_light) for is_light in (True, False)]
    channels = [summarize_state(Channels(), Channels().measure(one), known) for one in activations]
    assert channels[0] == channels[1]


@pytest.mark.parametrize("kind", ["normal", "rectified", "heavy"])
def test_percentiles_are_within_the_stated_error_of_their_rank(kind):
    tensor = fields(8, 32, 64, 64)
    tensor = {"normal": tensor, "rectified": tensor.clamp(min=0), "heavy": tensor**5}[kind]
    summary = summarize(Values(), tensor)
    note = summary.sketch
    assert note.share == pytest.approx(LIGHT_ELEMENTS / tensor.numel(), rel=0.01)
    assert note.rank_error == pytest.approx(1 / math.sqrt(LIGHT_ELEMENTS), rel=0.01)
    ordered = np.sort(tensor.double().numpy().reshape(-1))
    for percent in (1, 5, 50, 95, 99):
        value = summary.stats[f"p{percent:02d}"]
        slack = note.relative_error * abs(value) + 1e-12
        low = np.searchsorted(ordered, value - slack, "left") / ordered.size
        high = np.searchsorted(ordered, value + slack, "right") / ordered.size
        assert low - note.rank_error <= percent / 100 <= high + note.rank_error
    assert sum(summary.histogram.counts) + summary.histogram.below + summary.histogram.above == pytest.approx(
        note.share * tensor.numel()
    )


def test_shares_of_energy_are_within_the_stated_error():
    misses = 0
    for seed in range(20):
        tensor = fields(2, 64, 32, 32, seed=seed)
        light, full = summarize(Spectrum(), tensor), summarize(Spectrum(), tensor, is_light=False)
        assert (light.spectrum.share, full.spectrum.share) == (1 / 8, 1.0)
        assert full.spectrum.share_error == 0
        assert 0 < light.spectrum.share_error < 0.5
        for key in ("low_frequency_fraction", "high_frequency_fraction", "dc_fraction"):
            misses += abs(light.stats[key] - full.stats[key]) > light.spectrum.share_error
    assert misses == 0


def test_batches_of_a_share_add_up():
    batches = [fields(2, 64, 32, 32, seed=seed) for seed in range(3)]
    states = [Spectrum().measure(activation_of(batch)) for batch in batches]
    merged = summarize_state(Spectrum(), merge_states(merge_states(*states[:2]), states[2]), Known())
    assert (merged.spectrum.fields, merged.spectrum.share) == (48, 1 / 8)
    alone = summarize_state(Spectrum(), states[0], Known())
    assert merged.spectrum.share_error < alone.spectrum.share_error


def test_fields_that_are_not_finite_are_left_out_of_a_share_too():
    tensor = fields(2, 64, 32, 32)
    tensor[0, ::2, 3, 3] = torch.nan
    summary = summarize(Spectrum(), tensor)
    assert summary.spectrum.fields + summary.spectrum.fields_left_out == 16
    assert summary.spectrum.fields_left_out > 0
    assert 0 < summary.stats["low_frequency_fraction"] < 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.complex64])
def test_every_type_has_a_share(dtype):
    tensor = fields(8, 32, 32, 64).to(dtype)
    light, full = summarize(Values(), tensor), summarize(Values(), tensor, is_light=False)
    assert light.sketch.share < 1
    assert light.stats["p50"] == pytest.approx(full.stats["p50"], abs=0.02)
    assert light.stats["rms"] == full.stats["rms"]
