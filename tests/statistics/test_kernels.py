"""Both sets of kernels against float64 NumPy, at the edges of where float32 is enough; the choice of one."""

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from fno_telemetry.errors import MissingExtra, OptionError
from fno_telemetry.statistics import kernels
from fno_telemetry.statistics.activation import Activation, Layout
from fno_telemetry.statistics.branches import Branches, Updates
from fno_telemetry.statistics.contract import summarize_state
from fno_telemetry.statistics.kernels import choice
from fno_telemetry.statistics.mode_energies import measure_energies
from fno_telemetry.statistics.norms import frobenius_norm
from fno_telemetry.statistics.samples import Samples
from fno_telemetry.statistics.sketch import _ordered_pattern, _window_on_host
from fno_telemetry.statistics.spectrum import Spectrum
from fno_telemetry.statistics.subjects import BranchSum, ResidualUpdate
from fno_telemetry.statistics.values import Values

LAYOUT = Layout(0, 1, (2, 3))
LARGE = (3, 5, 67, 65)  # more than is copied to float64, and of odd sizes


def _noise(seed: int, shape: tuple[int, ...] = LARGE) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


DATA = {
    "normal": _noise(1),
    "mean 3 times the spread": _noise(1) + 3,
    "mean 1e4 times the spread": _noise(1) + 1e4,
    "nearly constant magnitude": (1 + 1e-4 * _noise(1)) * _noise(2).sign(),
    "all equal": torch.full(LARGE, 0.7, dtype=torch.float64),
    "rectified": _noise(1).clamp(min=0),
    "below 2": _noise(1).clamp(-1.9, 1.9),
    "narrow": 1 + 1e-3 * _noise(1),
    "subnormal": _noise(1) * 1e-42,
    "1e30": _noise(1) * 1e30,
    "1e-30": _noise(1) * 1e-30,
    "just safe": _noise(1).clamp(-0.9, 0.9) * 1e12,
    "one outlier": torch.cat((_noise(1).flatten()[1:], torch.tensor([1e6], dtype=torch.float64))).view(LARGE),
}
every_data = pytest.mark.parametrize("name", DATA)


@every_data
def test_moments_of_large_tensors_are_right_to_a_millionth_of_the_rms(name: str) -> None:
    values = DATA[name].float()
    stats = summarize_state(Values(), Values().measure(Activation(values, LAYOUT))).stats
    exact = values.double().numpy()
    rms = math.sqrt((exact**2).mean())
    expected = {
        "mean": exact.mean(),
        "std": exact.std(),
        "rms": rms,
        "abs_mean": abs(exact).mean(),
        "abs_std": abs(exact).std(),
        "min": exact.min(),
        "max": exact.max(),
    }
    for key, value in expected.items():
        assert stats[key] == pytest.approx(value, rel=1e-6, abs=1e-6 * rms), key
    assert stats["zero_fraction"] == (exact == 0).mean()
    assert stats["negative_fraction"] == (exact < 0).mean()


@every_data
@pytest.mark.parametrize("size", [1, 2, 100, 5000, 60_000])
def test_every_bin_is_counted(name: str, size: int) -> None:
    values = DATA[name].float().reshape(-1)[:size].clone()
    values[::7] = -0.0 if values.min() <= 0 else values[0]
    patterns = (values + 0.0).view(torch.int32).numpy().astype(np.int64)
    ordered = np.where(patterns < 0, -(patterns + 2**31) - 1, patterns)
    low, high = (_ordered_pattern(float(end)) for end in torch.aminmax(values))
    assert (low, high) == (ordered.min(), ordered.max())
    shift, start = _window_on_host(low, high)
    bins, counts = kernels.active().count_bins(values.numpy(), shift, start)
    expected = np.unique((ordered >> shift) - start, return_counts=True)
    assert bins.tolist() == expected[0].tolist() and counts.tolist() == expected[1].tolist()
    assert kernels.active().count_signs(values.numpy()) == (int((values < 0).sum()), int((values == 0).sum()))


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (2, 4096), (5, 4097), (1, 70_001), (70_001, 1), (300, 64)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_of_rows_of_any_length(shape: tuple[int, int], dtype: Any) -> None:
    rows = (_noise(3, shape) + 0.5).numpy().astype(dtype)
    wide = rows.astype(np.float64)
    found = kernels.active().sum_rows(rows)
    assert found.low.tolist() == wide.min(1).tolist() and found.high.tolist() == wide.max(1).tolist()
    assert np.allclose(found.total, wide.sum(1), rtol=0, atol=3e-7 * abs(wide).sum(1))
    assert np.allclose(found.squares, (wide**2).sum(1), rtol=3e-7)
    assert found.energy == pytest.approx((wide**2).sum(), rel=3e-7)
    assert np.allclose(found.magnitudes, abs(wide).sum(1), rtol=3e-7)


@pytest.mark.parametrize("wrong", [math.nan, -math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("size", [5, 30_000])
def test_a_wrong_element_shows_in_the_extremes_of_its_row(wrong: float, size: int) -> None:
    rows = _noise(4, (3, size)).float().numpy()
    rows[1, 2] = np.copysign(np.float32(wrong), np.float32(math.copysign(1, wrong)))
    found = kernels.active().sum_rows(rows)
    finite = np.isfinite(found.low) & np.isfinite(found.high)
    assert finite.tolist() == [True, False, True]


@pytest.mark.parametrize("spread", [0.0, 1e-7, 1e-5, 1e-3, 1.0, 1e3])
def test_samples_that_are_nearly_alike_vary_as_little_as_they_do(spread: float) -> None:
    values = (_noise(5, (1, *LARGE[1:])) + spread * _noise(6, (7, *LARGE[1:]))).float()
    stats = summarize_state(Samples(), Samples().measure(Activation(values, LAYOUT))).stats
    exact = values.double().numpy()
    expected = math.sqrt(((exact - exact.mean(0)) ** 2).sum() / (exact**2).sum())
    assert stats["sample_variation"] == pytest.approx(expected, rel=1e-6, abs=1e-13)


@pytest.mark.parametrize("change", [0.0, 1e-25, 1e-7, 1e-3, 1.0])
def test_an_update_is_exact_however_small_it_is(change: float) -> None:
    before = _noise(7).float()
    before[0, 0] = 0
    after = (before.double() + change * _noise(8)).float()
    state = Updates().measure(ResidualUpdate(Activation(before, LAYOUT), Activation(after, LAYOUT)))
    one, other = before.double().numpy(), after.double().numpy()
    expected = math.sqrt(((other - one) ** 2).sum() / (one**2).sum())
    assert summarize_state(Updates(), state).stats["update_ratio"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("rest", [0.0, 1e-6, 1e-3, 0.5])
@pytest.mark.parametrize("bias", [0.0, 30.0])
def test_branches_that_nearly_cancel(rest: float, bias: float) -> None:
    s = (_noise(9) + bias).float()
    t = (-s.double() + rest * _noise(10)).float()
    state = Branches().measure(BranchSum(Activation(s, LAYOUT), Activation(t, LAYOUT)))
    stats = summarize_state(Branches(), state).stats
    one, other = (x.double().numpy() for x in (s, t))
    one, other = (x - x.mean((2, 3), keepdims=True) for x in (one, other))
    norms = [math.sqrt((x**2).sum()) for x in (one, other, one + other)]
    coherence = norms[2] / (norms[0] + norms[1])
    assert stats["branch_coherence"] == pytest.approx(coherence, rel=1e-6, abs=1e-9)
    assert stats["branch_cosine"] == pytest.approx((one * other).sum() / norms[0] / norms[1], rel=1e-6)
    assert stats["spectral_local_ratio"] == pytest.approx(norms[0] / norms[1], rel=1e-6)


@pytest.mark.parametrize("share", [0.5, 2e-3, 5e-4, 1e-6, 1e-9])
def test_a_spectrum_beside_a_large_mean_is_that_without_it(share: float) -> None:
    values = (1 + math.sqrt(share) * _noise(11)).float()
    stats = summarize_state(Spectrum(), Spectrum().measure(Activation(values, LAYOUT))).stats
    exact = values.double()
    rest = exact - exact.mean((2, 3), keepdim=True)
    alone = summarize_state(Spectrum(), Spectrum().measure(Activation(rest, LAYOUT))).stats
    for key in ("low_frequency_fraction", "high_frequency_fraction", "spectral_centroid"):
        assert stats[key] == pytest.approx(alone[key], rel=1e-6), key
    expected = 1 - float(rest.square().sum() / exact.square().sum())
    assert stats["dc_fraction"] == pytest.approx(expected, abs=1e-6 * share)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12, 1e30])
def test_energies_of_weights_neither_overflow_nor_underflow(scale: float) -> None:
    parts = _noise(12, (48, 40, 9, 5, 2)) * scale
    parts[:, :, 3] *= 1e-5
    weight = torch.view_as_complex(parts.float())
    exact = abs(weight.to(torch.complex128).numpy()) ** 2
    energies = measure_energies(torch.view_as_real(weight), 2).numpy()
    assert np.allclose(energies, exact.sum((0, 1)), rtol=1e-6, atol=1e-18 * exact.max())
    assert float(frobenius_norm(weight)) == pytest.approx(math.sqrt(exact.sum()), rel=1e-6)


def test_kernels_say_what_they_are(kernels_in_use: str) -> None:
    assert kernels.kernels_in_use().startswith(f"{kernels_in_use} ")


def test_compiled_kernels_are_the_first_choice_where_numba_is_installed(monkeypatch: Any) -> None:
    monkeypatch.delenv(choice.VARIABLE, raising=False)
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    assert choice._chosen.__wrapped__().name.startswith("torch ")
    monkeypatch.setattr(choice, "find_spec", lambda name: "there")
    assert isinstance(choice._chosen.__wrapped__().own, choice.NumbaKernels)
    monkeypatch.setenv(choice.VARIABLE, "torch")
    assert choice._chosen.__wrapped__().name.startswith("torch ")


def test_kernels_that_are_unknown_or_not_installed_are_refused(monkeypatch: Any) -> None:
    with pytest.raises(OptionError, match="No kernels are called 'fortran'"):
        choice._load.__wrapped__("fortran")
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'fno-telemetry\[fast\]'"):
        choice._load.__wrapped__("numba")


def test_small_tensors_do_not_load_numba() -> None:
    program = (
        "import sys, torch\n"
        "from fno_telemetry.statistics.activation import Activation, Layout\n"
        "from fno_telemetry.statistics.values import Values\n"
        "Values().measure(Activation(torch.ones(2, 3, 8, 8), Layout(0, 1, (2, 3))))\n"
        "print('numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
