"""How an output compares with its target: the slow reference, known answers, and what is undefined."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from fno_telemetry.statistics.accuracy import Accuracy
from fno_telemetry.statistics.activation import Activation, Layout
from fno_telemetry.statistics.contract import Summary, keys_of, merge_states, summarize_state
from fno_telemetry.statistics.subjects import Comparison

IMAGES = Layout(0, 1, (2, 3))
LAYOUTS = {
    "B,C,L even": ((3, 2, 16), Layout(0, 1, (2,))),
    "B,C,L odd": ((3, 2, 17), Layout(0, 1, (2,))),
    "B,C,H,W": ((3, 2, 8, 12), IMAGES),
    "B,C,H,W odd": ((2, 3, 9, 7), IMAGES),
    "B,H,W,C": ((2, 6, 9, 3), Layout(0, 3, (1, 2))),
    "no sample": ((3, 8, 9), Layout(None, 0, (1, 2))),
    "no channel": ((3, 8, 10), Layout(0, None, (1, 2))),
    "B,C,T,H,W over H,W": ((2, 2, 3, 6, 5), Layout(0, 1, (3, 4))),
    "B,C,D,H,W": ((2, 2, 6, 5, 8), Layout(0, 1, (2, 3, 4))),
    "B,C": ((5, 7), Layout(0, 1)),
}
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128]


def _noise(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    wide = torch.complex128 if dtype.is_complex else torch.float64
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=wide).to(dtype)


def _measure(output: torch.Tensor, target: torch.Tensor, layout: Layout = IMAGES) -> Any:
    return Accuracy().measure(Comparison(Activation(output, layout), Activation(target, layout)))


def _compare(output: torch.Tensor, target: torch.Tensor, layout: Layout = IMAGES) -> Summary:
    return summarize_state(Accuracy(), _measure(output, target, layout))


def _assert_equal(found: Summary, expected: Any) -> None:
    stats, bands, channels = expected
    assert dict(found.stats) == {
        name: None if value is None else pytest.approx(value, rel=1e-9) for name, value in stats.items()
    }
    assert {name for name, value in stats.items() if value is None} <= set(found.reasons)
    assert found.accuracy_channels == (None if channels is None else pytest.approx(channels, rel=1e-9))
    if bands is None:
        assert found.accuracy_bands is None and found.reasons["bands"]
        return
    assert found.accuracy_bands is not None
    total = sum(bands["target"]) + sum(bands["output"])
    for name in ("target", "output", "error"):
        assert getattr(found.accuracy_bands, name) == pytest.approx(bands[name], abs=1e-12 * total)
    for name in ("band_error", "spectrum_ratio", "band_coherence"):
        own = getattr(found.accuracy_bands, name)
        assert [value is None for value in own] == [value is None for value in bands[name]]
        assert [v for v in own if v is not None] == pytest.approx(
            [v for v in bands[name] if v is not None], rel=1e-7, abs=1e-9
        )


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_number_equals_the_reference(
    name: str, dtype: torch.dtype, reference: Any, as_array: Any
) -> None:
    shape, layout = LAYOUTS[name]
    target = _noise(shape, 1, dtype) + 0.5
    output = 0.7 * target + 0.2 * _noise(shape, 2, dtype)
    expected = reference.accuracy(
        as_array(output), as_array(target), layout.sample, layout.channel, layout.space
    )
    _assert_equal(_compare(output, target, layout), expected)


@pytest.mark.parametrize("factor", [1e38, 1e-38, 1e-42], ids=str)
def test_the_size_of_the_values_changes_no_ratio(factor: float, reference: Any, as_array: Any) -> None:
    target, output = (_noise((3, 2, 9, 8), seed).clamp(-3, 3) * factor for seed in (1, 2))
    expected = reference.accuracy(as_array(output), as_array(target), 0, 1, (2, 3))
    _assert_equal(_compare(output, target), expected)


@pytest.mark.parametrize("factor", [1e300, 1e-200], ids=str)
def test_beyond_the_squares_of_float64_the_norms_are_still_right(factor: float) -> None:
    target, output = (_noise((3, 2, 9, 8), seed, torch.float64) for seed in (1, 2))
    found, expected = _compare(output * factor, target * factor), _compare(output, target)
    for name in ("relative_l2", "relative_l2_mean", "output_to_target_rms"):
        assert found.stats[name] == pytest.approx(expected.stats[name], rel=1e-9)
    assert found.accuracy_channels == pytest.approx(expected.accuracy_channels, rel=1e-9)


@pytest.mark.parametrize("offset", [1e-3, 1e-6])
@pytest.mark.parametrize("shape", [(4, 2, 33), (4, 2, 17, 24), (2, 2, 9, 8, 11)], ids=str)
def test_the_errors_of_all_bands_sum_to_the_squared_error(offset: float, shape: tuple[int, ...]) -> None:
    # Parseval, also where the error is a millionth of the target and the mean a thousand times its spread.
    target = _noise(shape, 1) + 1e3
    output = target + offset * 1e3 * _noise(shape, 2)
    layout = Layout(0, 1, tuple(range(2, len(shape))))
    bands = _compare(output, target, layout).accuracy_bands
    assert bands is not None
    for name, tensor in (
        ("error", output.double() - target.double()),
        ("target", target.double()),
        ("output", output.double()),
    ):
        assert sum(getattr(bands, name)) == pytest.approx(float(tensor.square().sum()), rel=1e-10)


def test_the_error_splits_into_wrong_size_and_wrong_place() -> None:
    target = _noise((4, 1, 16, 16), 1)
    bands = _compare(0.5 * target.roll(1, -1) + 0.1 * _noise(target.shape, 2), target).accuracy_bands
    assert bands is not None
    columns = zip(bands.target, bands.output, bands.error, bands.band_coherence, strict=True)
    for y, z, error, coherence in columns:
        if coherence is not None:
            size = (math.sqrt(y) - math.sqrt(z)) ** 2
            assert error == pytest.approx(size + 2 * math.sqrt(y * z) * (1 - coherence), rel=1e-9)


def test_a_perfect_output_has_no_error_and_the_whole_resolution() -> None:
    target = _noise((4, 2, 32, 32), 1)
    found = _compare(target.clone(), target)
    assert found.stats == {
        "relative_l2": 0,
        "relative_l2_mean": 0,
        "error_to_mean_predictor": 0,
        "output_to_target_rms": 1,
        "effective_resolution": 23 / 32,
    }
    bands = found.accuracy_bands
    assert bands is not None and not found.reasons
    assert set(bands.band_error) == {0} and set(bands.spectrum_ratio) == {1}
    assert bands.band_coherence == pytest.approx([1] * 24)


def test_the_mean_of_each_channel_is_the_mean_predictor() -> None:
    target = _noise((5, 3, 8, 9), 1) + torch.tensor([0.0, 10.0, -500.0]).reshape(1, 3, 1, 1)
    means = target.double().mean((0, 2, 3), keepdim=True)
    found = _compare(means.expand(target.shape), target.double())
    assert found.stats["error_to_mean_predictor"] == pytest.approx(1)
    assert found.stats["relative_l2"] is not None and found.stats["relative_l2"] < 0.01


def test_the_resolution_ends_where_half_of_the_energy_is_lost_for_good() -> None:
    target = _noise((8, 1, 64, 64), 1, torch.float64)
    coefficients = torch.fft.fftn(target, dim=(2, 3))
    along = torch.fft.fftfreq(64, dtype=torch.float64)
    radius = (along[:, None].square() + along[None, :].square()).sqrt()

    def keep(kept: torch.Tensor) -> float | int | None:
        output = torch.fft.ifftn(coefficients * kept, dim=(2, 3)).real
        return _compare(output, target).stats["effective_resolution"]

    low = (radius <= 6 / 32).double()
    assert keep(low) == 6 / 32
    assert keep(low + 0.8 * (1 - low)) == 23 / 32  # 0.64 of the energy everywhere
    assert keep(low + 0.7 * (1 - low)) == 6 / 32
    # A gap in between ends nothing.
    assert keep(1 - ((radius > 6 / 32) & (radius <= 8 / 32)).double()) == 23 / 32
    assert keep(0 * low) == 0


def test_bands_in_which_the_target_has_nothing_do_not_end_the_resolution() -> None:
    wave = torch.cos(2 * torch.pi * 2 * torch.arange(64) / 64)  # |f| = 1/32, in the first band
    found = _compare(wave.reshape(1, 1, 64), wave.reshape(1, 1, 64), Layout(0, 1, (2,)))
    assert found.accuracy_bands is not None
    assert found.accuracy_bands.spectrum_ratio == (None, 1, *[None] * 15)
    assert found.stats["effective_resolution"] == 1 / 2
    assert found.reasons == {
        "band_error": "the target has no energy in a band that is null",
        "spectrum_ratio": "the target has no energy in a band that is null",
        "band_coherence": "the output or the target has no energy in a band that is null",
    }


@pytest.mark.parametrize(
    ("output", "target", "layout", "undefined"),
    [
        (
            _noise((3, 2, 8, 8), 1),
            torch.zeros(3, 2, 8, 8),
            IMAGES,
            dict.fromkeys(
                [*keys_of(Accuracy()), "bands", "channels"],
                "the target is zero, or its squares underflow float64",
            ),
        ),
        (
            _noise((3, 2, 8, 8), 1),
            torch.tensor([0.1, -7.0]).reshape(1, 2, 1, 1).expand(3, 2, 8, 8),
            IMAGES,
            {
                "error_to_mean_predictor": "the target is constant",
                "effective_resolution": "the target is constant in space",
            },
        ),
        (
            _noise((3, 2, 8, 8), 1),
            torch.arange(1.0, 7.0).reshape(3, 2, 1, 1).expand(3, 2, 8, 8),
            IMAGES,
            {"effective_resolution": "the target is constant in space"},
        ),
        (
            torch.full((3, 2, 8, 8), math.nan),
            _noise((3, 2, 8, 8), 1) / torch.tensor([1.0, 0]).reshape(2, 1, 1),
            IMAGES,
            dict.fromkeys(
                [*keys_of(Accuracy()), "bands", "channels"],
                "576 elements of the output and the target are not finite",
            ),
        ),
        (
            _noise((3, 2), 1),
            _noise((3, 2), 2),
            Layout(0, 1),
            {
                "effective_resolution": "no spatial axes are known",
                "bands": "no spatial axes are known",
            },
        ),
        (
            _noise((2, 8, 8), 1),
            _noise((2, 8, 8), 2),
            Layout(None, 0, (1, 2)),
            {"relative_l2_mean": "the output has no sample axis"},
        ),
        (
            _noise((3, 1, 8, 8), 1),
            _noise((3, 1, 8, 8), 2) * torch.tensor([1.0, 0, 0]).reshape(3, 1, 1, 1),
            IMAGES,
            {"relative_l2_mean": "the target of 2 of 3 samples is zero"},
        ),
        (
            _noise((1, 65, 8), 1),
            _noise((1, 65, 8), 2),
            Layout(0, 1, (2,)),
            {"channels": "more than 64 channels"},
        ),
        (
            _noise((0, 1, 8, 8), 1),
            _noise((0, 1, 8, 8), 2),
            IMAGES,
            dict.fromkeys(keys_of(Accuracy()), "the tensor has no elements"),
        ),
    ],
    ids=[
        *("zero target", "constant channels", "constant in space", "not finite", "no space", "no samples"),
        *("zero samples", "many channels", "empty"),
    ],
)
def test_what_is_undefined_says_why(
    output: torch.Tensor, target: torch.Tensor, layout: Layout, undefined: dict[str, str]
) -> None:
    found = _compare(output, target, layout)
    whole = ("band_error", "spectrum_ratio", "band_coherence")
    assert {name: why for name, why in found.reasons.items() if name not in whole} == undefined
    assert [name for name, value in found.stats.items() if value is None] == [
        name for name in keys_of(Accuracy()) if name in undefined
    ]
    assert (found.accuracy_bands is None) == ("bands" in undefined or not output.numel())


def test_an_output_of_zeros_misses_everything_and_coheres_with_nothing() -> None:
    target = _noise((3, 1, 32, 32), 1)
    found = _compare(torch.zeros(target.shape), target)
    assert found.accuracy_bands is not None
    assert set(found.accuracy_bands.spectrum_ratio) == {0}
    assert set(found.accuracy_bands.band_coherence) == {None}
    assert found.accuracy_bands.band_error == pytest.approx([1] * 24)
    assert found.stats["effective_resolution"] == 0


def test_batches_of_other_channels_or_dimensions_have_no_numbers_of_these() -> None:
    def measure(*shape: int) -> Any:
        space = tuple(range(2, len(shape)))
        return _measure(_noise(shape, 1), _noise(shape, 2), Layout(0, 1, space))

    channels = summarize_state(Accuracy(), merge_states(measure(2, 2, 8, 8), measure(3, 1, 8, 8)))
    assert channels.stats["error_to_mean_predictor"] is None
    assert channels.reasons["channels"] == "the number of channels changed between batches"
    assert channels.accuracy_bands is not None
    axes = summarize_state(Accuracy(), merge_states(measure(2, 1, 8, 8), measure(2, 1, 8)))
    assert axes.reasons["bands"] == "the number of spatial axes changed between batches"
    sizes = summarize_state(Accuracy(), merge_states(measure(2, 1, 8, 16), measure(2, 1, 16, 8)))
    assert sizes.accuracy_bands is not None
    assert sizes.accuracy_bands.sizes == (16, 16)


def test_large_fields_are_measured_in_blocks_like_small_ones(reference: Any, as_array: Any) -> None:
    # 2^18 elements in each of two samples: more than a block, so samples and channels are cut apart.
    target = _noise((2, 4, 256, 256), 1) + torch.arange(4.0).reshape(1, 4, 1, 1)
    output = target.roll(1, 0)
    found = _compare(output, target)
    assert found.accuracy_bands is not None
    error = output.double() - target.double()
    assert sum(found.accuracy_bands.error) == pytest.approx(float(error.square().sum()), rel=1e-10)
    wide = target.double()
    assert found.stats["error_to_mean_predictor"] == pytest.approx(
        float(error.norm() / (wide - wide.mean((0, 2, 3), keepdim=True)).norm()), rel=1e-9
    )
    ratios = output.double().square().sum((0, 2, 3)) / wide.square().sum((0, 2, 3))
    assert found.accuracy_channels == pytest.approx(ratios.sqrt().tolist(), rel=1e-9)
    assert np.isfinite(found.stats["relative_l2_mean"] or np.nan)
