"""The same samples give the same record, in whatever batches they run."""

import pytest
import torch

import fno_telemetry as ft

NETWORKS = ("fno", "hybrid", "stable_hybrid", "fno_vanilla")
EXACT = {"count", "nan_count", "inf_count", "finite_fraction"}
PERCENTILES = {"p01", "p05", "p50", "p95", "p99", "abs_p50", "abs_p95", "abs_p99"}
IN_UNITS_OF_X = {"mean", "std", "rms", "min", "max", "abs_mean", "abs_std"}
NEAR_ZERO = {"zero_fraction", "negative_fraction", "tail_ratio"}
"""Beyond rounding, these also move with single values that sit next to zero or to a bin's edge."""


@pytest.fixture(scope="module")
def kept():
    """Records by network and splits: they cannot be changed, so tests share them."""
    return {}


@pytest.fixture
def captured(small_network, images, kept):
    """Return the records of one network for several splits of the same eight samples."""

    def run(name, *, splits=(8, 3, 1)):
        if (name, splits) not in kept:
            model = small_network(name)
            kept[name, splits] = [ft.capture(model, list(images.split(size))) for size in splits]
        return kept[name, splits]

    return run


def close(key, one, other, stats, error):
    if one is None or other is None or key in EXACT:
        return one == other
    scale = stats["rms"] if key in IN_UNITS_OF_X or key in PERCENTILES else max(1.0, abs(other))
    bound = 1e-4 * scale
    if key in PERCENTILES or key in NEAR_ZERO:
        bound += 2 * error * abs(other)
    return abs(one - other) <= bound


@pytest.mark.parametrize("name", NETWORKS)
def test_modules_do_not_depend_on_the_batch_size(name, captured):
    whole, *others = captured(name)
    assert len(whole.modules) > 10
    for record in others:
        for one, other in zip(
            (*record.modules, record.input, record.output),
            (*whole.modules, whole.input, whole.output),
            strict=True,
        ):
            if hasattr(one, "name"):
                assert (one.name, one.call, one.order, one.parent, one.role) == (
                    *(other.name, other.call, other.order, other.parent),
                    other.role,
                )
            assert (one.item, one.shape, one.dtype, one.spatial_axes) == (
                *(other.item, other.shape, other.dtype),
                other.spatial_axes,
            )
            assert one.shape[0] == 8
            assert dict(one.reasons) == dict(other.reasons)
            assert one.stats.keys() == other.stats.keys()
            error = other.sketch.relative_error
            for key, value in one.stats.items():
                assert close(key, value, other.stats[key], other.stats, error), (one, key)


@pytest.mark.parametrize("name", NETWORKS)
def test_spectra_and_histograms_do_not_depend_on_the_batch_size(name, captured):
    whole, *others = captured(name)
    for record in others:
        for one, other in zip(record.modules, whole.modules, strict=True):
            assert (one.spectrum is None) == (other.spectrum is None)
            if one.spectrum is not None:
                assert one.spectrum.fields == other.spectrum.fields
                assert one.spectrum.bands == pytest.approx(other.spectrum.bands, abs=1e-4)
                assert one.spectrum.axis_bands[0] == pytest.approx(other.spectrum.axis_bands[0], abs=1e-4)
            assert one.log_histogram.edges == other.log_histogram.edges
            counts = torch.tensor(one.log_histogram.counts), torch.tensor(other.log_histogram.counts)
            total = other.stats["count"]
            # Rounding moves values across an edge now and then, and never many.
            assert (counts[0] - counts[1]).abs().sum() <= 0.01 * total
            assert sum(one.histogram.counts) + one.histogram.below + one.histogram.above == total


@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_do_not_depend_on_the_batch_size(name, captured):
    whole, *others = captured(name)
    assert len(whole.blocks) == (3 if "hybrid" in name else 2)
    for record in others:
        for one, other in zip(record.blocks, whole.blocks, strict=True):
            assert (one.name, one.call, one.spectral, one.local) == (
                *(other.name, other.call),
                *(other.spectral, other.local),
            )
            assert {**one.stats} == pytest.approx({**other.stats}, rel=1e-4, abs=1e-5)
            assert None not in one.stats.values()


def test_an_exact_forward_gives_exactly_equal_counts_and_sketches(images):
    class Exact(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.halve = torch.nn.Identity()
            self.relu = torch.nn.ReLU()

        def forward(self, x):
            return self.relu(self.halve(x / 2) - 0.25)

    images[3, 0, 2:4] = float("inf")
    whole, *others = (ft.capture(Exact(), list(images.split(size))) for size in (8, 3, 1))
    exact = EXACT | PERCENTILES | NEAR_ZERO | {"min", "max", "dead_channel_fraction"}
    for record in others:
        for one, other in zip(record.modules, whole.modules, strict=True):
            assert {key: one.stats[key] for key in exact} == {key: other.stats[key] for key in exact}
            assert (one.histogram, one.log_histogram, one.sketch) == (
                *(other.histogram, other.log_histogram),
                other.sketch,
            )
            for key, value in one.stats.items():
                assert value == (
                    None if value is None else pytest.approx(other.stats[key], rel=1e-6, abs=1e-9)
                )


def test_the_split_changes_neither_digest_nor_number_of_samples(captured):
    whole, *others = captured("fno_vanilla", splits=(8, 5, 3, 1))
    assert whole.provenance["input"]["shape"] == (8, 1, 12, 10)
    for record in others:
        assert record.provenance["input"]["digest"] == whole.provenance["input"]["digest"]
        assert record.provenance["input"]["shape"] == whole.provenance["input"]["shape"]
        assert record.summary["n_samples"] == 8


def test_the_earlier_formulas_have_one_value_per_batch(captured):
    for record, number in zip(captured("fno"), (1, 3, 8), strict=True):
        assert record.layers
        assert {len(values) for values in record.layers.values()} == {number}
