"""Fields whose spectra are known beforehand."""

import math
from typing import Any

import pytest
import torch

from fno_telemetry.statistics.activation import Activation, Layout
from fno_telemetry.statistics.contract import Summary, Undefined, keys_of, summarize_state
from fno_telemetry.statistics.frequency_grid import frequency_grid
from fno_telemetry.statistics.spectrum import Spectrum
from fno_telemetry.statistics.subjects import SpectralInput
from fno_telemetry.statistics.truncation import Truncation

SIZES = [(16,), (15,), (8, 8), (9, 8), (8, 9), (7, 9), (6, 8, 10), (5, 7, 9)]
every_size = pytest.mark.parametrize("sizes", SIZES, ids=str)
SHARES = keys_of(Spectrum())[1:]


def _layout(sizes: tuple[int, ...]) -> Layout:
    return Layout(0, 1, tuple(range(2, 2 + len(sizes))))


def _spectrum(fields: torch.Tensor, sizes: tuple[int, ...]) -> Summary:
    """The spectrum of one field, or of a batch of them."""
    batch = fields.reshape(-1, 1, *sizes)
    return summarize_state(Spectrum(), Spectrum().measure(Activation(batch, _layout(sizes))))


def _wave(sizes: tuple[int, ...], index: tuple[int, ...], phase: float = 0.3) -> torch.Tensor:
    """cos(2 pi (k_1 x_1 / n_1 + ...) + phase)."""
    angle = torch.full(sizes, phase, dtype=torch.float64)
    for axis, (size, k) in enumerate(zip(sizes, index, strict=True)):
        place = torch.arange(size, dtype=torch.float64)
        shape = [-1 if a == axis else 1 for a in range(len(sizes))]
        angle = angle + (2 * math.pi * k / size * place).reshape(shape)
    return torch.cos(angle).float()


@every_size
@pytest.mark.parametrize("value", [0.1, -3e38, 1e-38, 1e4])
def test_a_constant_field_is_all_dc(sizes: tuple[int, ...], value: float) -> None:
    summary = _spectrum(torch.full(sizes, value), sizes)
    assert summary.stats["dc_fraction"] == 1
    assert [summary.stats[key] for key in SHARES] == [None] * 4
    assert set(summary.reasons) == set(SHARES)
    assert set(summary.reasons.values()) == {"the fields are constant in space"}
    assert summary.spectrum is None


@every_size
def test_a_zero_field_has_no_spectrum_at_all(sizes: tuple[int, ...]) -> None:
    summary = _spectrum(torch.zeros(sizes), sizes)
    assert set(summary.stats.values()) == {None}
    assert summary.reasons["dc_fraction"].startswith("the fields are zero")


@pytest.mark.parametrize("sizes", [s for s in SIZES if len(s) > 1], ids=str)
def test_a_plane_wave_and_its_mirror_image_read_the_same(sizes: tuple[int, ...]) -> None:
    index = (1, *(2 for _ in sizes[1:]))
    mirrored = (-1, *index[1:])
    one, other = (_spectrum(_wave(sizes, k), sizes) for k in (index, mirrored))
    for key in ("dc_fraction", "low_frequency_fraction", "high_frequency_fraction", "spectral_centroid"):
        assert one.stats[key] == pytest.approx(other.stats[key], abs=1e-7)
    assert one.spectrum is not None and other.spectrum is not None
    assert one.spectrum.bands == pytest.approx(other.spectrum.bands, abs=1e-7)
    radius = math.sqrt(sum((k / n) ** 2 for k, n in zip(index, sizes, strict=True)))
    assert one.stats["spectral_centroid"] == pytest.approx(radius, abs=1e-7)
    assert one.stats["one_sidedness"] == pytest.approx(0, abs=1e-9)
    assert other.stats["one_sidedness"] is None
    assert other.reasons["one_sidedness"] == "no energy on the positive side"
    both = _spectrum(_wave(sizes, index) + _wave(sizes, mirrored, 1.0), sizes)
    assert both.stats["one_sidedness"] == pytest.approx(1, abs=1e-5)


@every_size
def test_white_noise_reads_the_share_of_coefficients(sizes: tuple[int, ...], reference: Any) -> None:
    generator = torch.Generator().manual_seed(2)
    summary = _spectrum(torch.randn((4000, *sizes), generator=generator), sizes)
    places = [place for place in reference.signed_frequencies(sizes) if any(place)]
    widest = [max(abs(f) for f in place) for place in places]
    low = sum(f <= 1 / 8 for f in widest) / len(places)
    high = sum(f > 1 / 4 for f in widest) / len(places)
    centroid = sum(math.hypot(*place) for place in places) / len(places)
    assert summary.stats["low_frequency_fraction"] == pytest.approx(low, abs=0.01)
    assert summary.stats["high_frequency_fraction"] == pytest.approx(high, abs=0.01)
    assert summary.stats["spectral_centroid"] == pytest.approx(centroid, abs=0.005)
    assert summary.stats["dc_fraction"] == pytest.approx(1 / math.prod(sizes), abs=0.005)
    if len(sizes) > 1:
        assert summary.stats["one_sidedness"] == pytest.approx(1, abs=0.05)
    else:
        assert summary.stats["one_sidedness"] is None


@every_size
@pytest.mark.parametrize("factor", [-1, 3, 1e-30, 1e30, 1e-42])
def test_multiplying_by_a_constant_changes_no_share(sizes: tuple[int, ...], factor: float) -> None:
    field = torch.randn(sizes, generator=torch.Generator().manual_seed(1)).double().round(decimals=2) + 1
    one, other = _spectrum(field, sizes), _spectrum((field * factor).float().double(), sizes)
    tolerance = 1e-2 if factor == 1e-42 else 1e-6  # subnormals hold two or three digits
    for key, value in one.stats.items():
        assert other.stats[key] == (None if value is None else pytest.approx(value, rel=tolerance))
    narrow = _spectrum((field * factor).float(), sizes)
    for key, value in other.stats.items():
        assert narrow.stats[key] == (None if value is None else pytest.approx(value, rel=1e-5))


@pytest.mark.parametrize("sizes", [(16, 16), (15, 17), (16, 17), (8, 6, 16)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=["real", "complex"])
def test_one_sidedness_finds_an_operator_that_keeps_one_side(
    sizes: tuple[int, ...], dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(4)
    noise = torch.randn((200, *sizes), generator=generator, dtype=dtype)
    assert _spectrum(noise, sizes).stats["one_sidedness"] == pytest.approx(1, abs=0.05)
    dims = tuple(range(1, 1 + len(sizes)))
    rows = sizes[0]
    if dtype.is_complex:
        coefficients = torch.fft.fftn(noise, dim=dims)
        coefficients[:, rows // 2 + 1 :] = 0
        kept = torch.fft.ifftn(coefficients, dim=dims)
    else:
        coefficients = torch.fft.rfftn(noise, dim=dims)
        coefficients[:, rows // 2 + 1 :] = 0
        kept = torch.fft.irfftn(coefficients, s=sizes, dim=dims)
    assert _spectrum(kept, sizes).stats["one_sidedness"] == pytest.approx(0, abs=1e-6)


def test_neither_nyquist_nor_the_zero_row_counts_for_one_sidedness() -> None:
    sizes = (8, 8)
    alone = _spectrum(_wave(sizes, (1, 1)) + _wave(sizes, (-1, 1), 1.0), sizes)
    along = _wave(sizes, (0, 3)) + _wave(sizes, (4, 1)) + _wave(sizes, (2, 0)) + _wave(sizes, (1, 4))
    with_others = _spectrum(_wave(sizes, (1, 1)) + _wave(sizes, (-1, 1), 1.0) + 9 * along, sizes)
    assert with_others.stats["one_sidedness"] == pytest.approx(alone.stats["one_sidedness"], rel=1e-4)


def test_a_complex_wave_in_one_dimension_has_a_side_and_a_real_one_has_none() -> None:
    place = torch.arange(16) / 16
    forward = torch.exp(2j * math.pi * 3 * place)
    backward = torch.exp(-2j * math.pi * 3 * place)
    assert _spectrum(forward, (16,)).stats["one_sidedness"] == pytest.approx(0, abs=1e-9)
    mixed = _spectrum(2 * forward + backward, (16,)).stats["one_sidedness"]
    assert mixed == pytest.approx(1 / 4, rel=1e-5)
    real = _spectrum(forward.real, (16,))
    assert real.stats["one_sidedness"] is None
    assert real.reasons["one_sidedness"] == "a real field over one axis has only one side"


def test_the_spectrum_of_a_complex_field_is_of_both_its_parts() -> None:
    sizes = (8, 8)
    fast, slow = _wave(sizes, (3, 3)), _wave(sizes, (1, 0))
    alone = _spectrum(torch.complex(slow, torch.zeros(sizes)), sizes)
    assert alone.stats["high_frequency_fraction"] == pytest.approx(0, abs=1e-9)
    both = _spectrum(torch.complex(slow, fast), sizes)
    assert both.stats["high_frequency_fraction"] == pytest.approx(0.5, abs=1e-6)


@every_size
def test_bands_are_closed_above_and_cover_the_corner(sizes: tuple[int, ...]) -> None:
    sizes = tuple(32 for _ in sizes)
    for k in (1, 2, 4, 8, 16):
        summary = _spectrum(_wave(sizes, (k, *(0 for _ in sizes[1:]))), sizes)
        assert summary.spectrum is not None
        assert summary.spectrum.bands[k - 1] == pytest.approx(1, abs=1e-6)
        assert summary.spectrum.axis_bands[0][k - 1] == pytest.approx(1, abs=1e-6)
    corner = _spectrum(_wave(sizes, tuple(16 for _ in sizes), 0.0), sizes)
    assert corner.spectrum is not None
    assert corner.spectrum.bands[-1] == pytest.approx(1, abs=1e-6)
    assert corner.spectrum.band_edges[-1] >= math.sqrt(len(sizes)) / 2 > corner.spectrum.band_edges[-2]


def test_a_frequency_on_an_edge_stays_below_it_after_rounding() -> None:
    # 3-4-5 triangles: |f| is exactly 8/32, though no axis frequency is exact in binary.
    summary = _spectrum(_wave((20, 20), (3, 4)), (20, 20))
    assert summary.spectrum is not None
    assert summary.spectrum.bands[7] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("k", [2, 4])
def test_cut_offs_belong_to_the_lower_side(k: int) -> None:
    stats = _spectrum(_wave((16, 16), (k, k)), (16, 16)).stats  # f = 1/8, 1/4
    assert stats["low_frequency_fraction"] == pytest.approx(1 if k == 2 else 0, abs=1e-6)
    assert stats["high_frequency_fraction"] == pytest.approx(0, abs=1e-6)


@every_size
@pytest.mark.parametrize("real", [True, False], ids=["real", "complex"])
def test_weights_count_every_point_once(sizes: tuple[int, ...], real: bool) -> None:
    grid = frequency_grid(sizes, real, torch.device("cpu"))
    assert int(grid.weight.sum()) == math.prod(sizes)


def test_fields_with_a_hole_are_left_out_whole_and_counted() -> None:
    generator = torch.Generator().manual_seed(1)
    fields = torch.randn((5, 3, 8, 8), generator=generator)
    holed = fields.clone()
    holed[1, 2, 3, 4] = math.nan
    holed[4, 0, 0, 0] = math.inf
    layout = Layout(0, 1, (2, 3))
    summary = summarize_state(Spectrum(), Spectrum().measure(Activation(holed, layout)))
    assert summary.spectrum is not None
    assert (summary.spectrum.fields, summary.spectrum.fields_left_out) == (13, 2)
    kept = torch.stack([f for f in holed.flatten(0, 1) if f.isfinite().all()]).unsqueeze(1)
    expected = summarize_state(Spectrum(), Spectrum().measure(Activation(kept, layout)))
    assert summary.stats == pytest.approx(dict(expected.stats), rel=1e-6)
    nothing = Spectrum().measure(Activation(holed * math.nan, layout))
    reasons = summarize_state(Spectrum(), nothing).reasons
    assert set(reasons.values()) == {"every field holds a non-finite element"}


@pytest.mark.parametrize("mean", [1e4, 1e5])
def test_a_large_mean_hides_nothing(mean: float) -> None:
    generator = torch.Generator().manual_seed(1)
    field = torch.randn((20, 16, 16), generator=generator) + mean
    exact = field.double()
    one, other = _spectrum(field, (16, 16)), _spectrum(exact, (16, 16))
    for key, value in other.stats.items():
        assert one.stats[key] == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=["real", "complex"])
def test_truncation_knows_the_wave_that_a_layer_cuts(dtype: torch.dtype) -> None:
    inside, outside = _wave((16, 16), (1, 2)).to(dtype), _wave((16, 16), (5, 6)).to(dtype)
    modes = torch.zeros(16, 9 if dtype == torch.float32 else 16, dtype=torch.bool)
    modes[:4, :4] = modes[-4:, :4] = modes[:4, -4:] = modes[-4:, -4:] = True
    if dtype == torch.float32:
        modes[:, 4:] = False
    layout = Layout(0, 1, (2, 3))
    for cut, field in (
        (0, inside),
        (1, outside),
        (0.2, 2 * inside + outside),
        (0.2, 2 * inside + outside + 7),
    ):
        state = Truncation().measure(SpectralInput(Activation(field[None, None], layout), modes))
        found = summarize_state(Truncation(), state).stats["truncated_energy_fraction"]
        assert found == pytest.approx(cut, abs=1e-6)


def test_truncation_says_why_it_has_no_number() -> None:
    layout = Layout(0, 1, (2, 3))
    modes = torch.ones(4, 3, dtype=torch.bool)
    field = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    cases = {
        "no spatial axes are known": (Activation(field, Layout(0, 1)), modes),
        "the modes that the layer keeps could not be detected": (Activation(field, layout), None),
        "the layer does not transform every spatial axis of its input in one call": (
            Activation(field, layout),
            modes[0],
        ),
        "the tensor has no elements": (Activation(field[:0], layout), modes),
        "the fields are constant in space": (Activation(torch.ones(2, 2, 4, 4), layout), modes),
        "every field holds a non-finite element": (Activation(field * math.nan, layout), modes),
        "the squares overflow float64": (Activation(field.double() * 1e300, layout), modes),
    }
    for reason, (activation, mask) in cases.items():
        summary = summarize_state(Truncation(), Truncation().measure(SpectralInput(activation, mask)))
        assert dict(summary.stats) == {"truncated_energy_fraction": None}
        assert dict(summary.reasons) == {"truncated_energy_fraction": reason}


def test_no_spectrum_without_spatial_axes() -> None:
    state = Spectrum().measure(Activation(torch.ones(2, 3), Layout(0, 1)))
    assert state == Undefined("no spatial axes are known")
