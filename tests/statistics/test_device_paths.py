"""What runs where looking at a value costs a synchronisation gives the numbers of the host path."""

import math
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fno_telemetry.statistics import activation as activations
from fno_telemetry.statistics import legacy, memory_blocks, reading
from fno_telemetry.statistics.accuracy import Accuracy
from fno_telemetry.statistics.activation import Activation, Layout
from fno_telemetry.statistics.branches import Branches, Gains, Updates
from fno_telemetry.statistics.channels import Channels
from fno_telemetry.statistics.contract import Known, Summary, merge_states, summarize_state
from fno_telemetry.statistics.effective_rank import EffectiveRank
from fno_telemetry.statistics.frequency_grid import frequency_grid
from fno_telemetry.statistics.gradients import ParameterGradientNorms
from fno_telemetry.statistics.missing_bands import MissingBands
from fno_telemetry.statistics.samples import Samples
from fno_telemetry.statistics.spectrum import Spectrum
from fno_telemetry.statistics.subjects import ParameterGradient, ParameterGradients, SpectralInput
from fno_telemetry.statistics.truncation import Truncation
from fno_telemetry.statistics.values import Values
from fno_telemetry.statistics.zero_samples import ZeroSamples
from fno_telemetry.testing.subjects import make_bands
from support.subjects import of_two

LAYOUT = Layout(0, 1, (2, 3))


def _noise(seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    wide = torch.complex128 if dtype.is_complex else torch.float64
    return torch.randn((3, 4, 9, 10), generator=torch.Generator().manual_seed(seed), dtype=wide).to(dtype)


def _holed(tensor: torch.Tensor) -> torch.Tensor:
    changed = tensor.clone()
    flat = changed.view(-1)
    flat[3], flat[400], flat[401], flat[5:9] = math.nan, math.inf, -math.inf, 0.0
    changed[:, 2] = math.nan
    changed[1] = 0
    return changed


TENSORS = {
    "float32": _noise(1),
    "float16": _noise(1, torch.float16),
    "bfloat16": _noise(1, torch.bfloat16),
    "float64": _noise(1, torch.float64),
    "complex64": _noise(1, torch.complex64),
    "complex128": _noise(1, torch.complex128),
    "rectified": _noise(1).clamp(min=0),
    "negative": -_noise(1).abs(),
    "holes": _holed(_noise(1)),
    "complex holes": _holed(_noise(1, torch.complex64)),
    "all NaN": _noise(1) * math.nan,
    "zero": torch.zeros(3, 4, 9, 10),
    "constant": torch.full((3, 4, 9, 10), 0.7),
    "1e38": _noise(1).clamp(-2, 2) * 1e38,
    "complex 1e38": torch.complex(_noise(1).clamp(-3, 3), _noise(2).clamp(-3, 3)) * 1e38,
    "1e-38": _noise(1) * 1e-38,
    "subnormal": _noise(1) * 1e-42,
    "1e300": _noise(1, torch.float64) * 1e300,
    "1e-200": _noise(1, torch.float64) * 1e-200,
    "far from zero": 1e4 + _noise(1),
    "empty": torch.empty(0, 4, 9, 10),
}


PAIRS = (Branches(), Updates(), Gains(), Accuracy(), MissingBands())
PARTNER = _holed(_noise(7)) * 0.3
MODES = {True: torch.zeros(9, 10, dtype=torch.bool), False: torch.zeros(9, 6, dtype=torch.bool)}
for mask in MODES.values():
    mask[:3, :3] = True


def _everything(tensor: torch.Tensor) -> dict[str, Any]:
    """All that is said about a tensor; of blocks, about it and a partner."""
    one, other = Activation(tensor, LAYOUT), Activation(PARTNER, LAYOUT)
    found: dict[str, Any] = {}
    known: dict[str, Any] = {}
    for statistic in (Values(), Channels(), Samples(), ZeroSamples(), EffectiveRank(), Spectrum()):
        state = statistic.measure(one)
        found[statistic.name] = summary = summarize_state(statistic, state, Known(known))
        known |= summary.stats
    cut = Truncation().measure(SpectralInput(one, MODES[tensor.is_complex()]))
    found["truncation"] = summarize_state(Truncation(), cut)
    if tensor.shape == other.field.squeeze(2).shape:
        for pair in PAIRS:
            state = pair.measure(of_two(pair, one, other))
            found[pair.name] = summarize_state(pair, state, Known(bands=make_bands()))
    row = legacy.measure(tensor, one, Values().measure(one), True).columns()
    found["earlier"] = Summary({key: values[0] for key, values in row.items()})
    return found


def _assert_alike(found: Summary, expected: Summary) -> None:
    assert found.reasons == expected.reasons
    assert found.histogram == expected.histogram
    assert found.log_histogram == expected.log_histogram
    assert found.sketch == expected.sketch
    assert found.channel_rms == pytest.approx(expected.channel_rms)
    assert (found.spectrum is None) == (expected.spectrum is None)
    scale = expected.stats.get("rms") or 1.0
    for key, value in expected.stats.items():
        if value is None or isinstance(value, int):
            assert found.stats[key] == value, key
        else:
            assert found.stats[key] == pytest.approx(value, rel=1e-6, abs=1e-7 * scale), key


@pytest.mark.parametrize("name", TENSORS)
def test_every_statistic_says_the_same_without_looking(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _everything(TENSORS[name])
    _pretend_a_device(monkeypatch)
    found = _everything(TENSORS[name])
    assert found.keys() == expected.keys()
    for statistic, summary in expected.items():
        _assert_alike(found[statistic], summary)


@pytest.mark.parametrize("on_host", [True, False])
@pytest.mark.parametrize("name", ["float32", "complex64", "holes", "complex holes", "1e38", "empty"])
def test_blocks_of_any_size_say_the_same(name: str, on_host: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _everything(TENSORS[name])
    monkeypatch.setattr(Activation, "on_host", on_host)
    for block in (1, 100, 90 * 4 * 2):
        monkeypatch.setattr(activations, "_HOST_BLOCK", block)
        monkeypatch.setattr(activations, "_DEVICE_BLOCK", block)
        found = _everything(TENSORS[name])
        for statistic, summary in expected.items():
            _assert_alike(found[statistic], summary)


def _pretend_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Activation, "on_host", False)
    monkeypatch.setattr(reading, "is_free", lambda tensor: False)


class Looking(TorchDispatchMode):
    """Notes every operation that has to wait for a device before the host can go on."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        masked = name.startswith("aten.index.") and any(
            i is not None and i.dtype == torch.bool for i in args[1]
        )
        if masked or name.split(".")[1] in (
            "_local_scalar_dense",
            "nonzero",
            "masked_select",
            "bincount",
            "equal",
        ):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["float32", "complex64", "holes", "rectified", "1e38", "bfloat16", "1e300"])
def test_measuring_and_merging_look_at_no_value_away_from_the_host(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensor = TENSORS[name]
    with Looking() as looking:
        bool(tensor.real.isfinite().all())
    assert looking.seen
    _pretend_a_device(monkeypatch)
    monkeypatch.setattr(memory_blocks, "DEVICE_BLOCK", 100)
    modes = torch.ones(9, 10 if tensor.is_complex() else 6, dtype=torch.bool)
    with Looking() as looking:
        one, other = Activation(tensor, LAYOUT), Activation(tensor.flip(0), LAYOUT)
        state = Values().measure(one)
        legacy.measure(tensor, one, state, True)
        state.merge(state)
        for statistic in (Channels(), Samples(), ZeroSamples(), EffectiveRank(), Spectrum()):
            measured: Any = statistic.measure(one)
            measured.merge(measured)
        Truncation().measure(SpectralInput(one, modes))
        for pair in PAIRS:
            paired: Any = pair.measure(of_two(pair, one, other))
            paired.merge(paired)
        ParameterGradientNorms().measure(ParameterGradients((ParameterGradient(tensor, tensor),)))
    assert looking.seen == []


def test_the_default_device_of_the_host_program_does_not_matter() -> None:
    frequency_grid.cache_clear()
    tensor = TENSORS["holes"]
    expected = _everything(tensor)
    frequency_grid.cache_clear()
    with torch.device("meta"):
        found = _everything(tensor)
    for statistic, summary in expected.items():
        _assert_alike(found[statistic], summary)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_default_precision_of_the_host_program_does_not_matter(dtype: torch.dtype) -> None:
    expected = _merged()
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        found = _merged()
    finally:
        torch.set_default_dtype(before)
    for statistic, summary in expected.items():
        _assert_alike(found[statistic], summary)


def test_autocast_and_inference_mode_change_nothing() -> None:
    expected = _everything(TENSORS["float32"])
    frequency_grid.cache_clear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = _everything(TENSORS["float32"])
    assert found == expected
    frequency_grid.cache_clear()
    with torch.inference_mode():
        found = _everything(TENSORS["float32"])
    assert found == expected
    # What was cached in inference mode serves outside of it as well.
    assert _everything(TENSORS["float32"]) == expected


def _merged() -> dict[str, Summary]:
    found = {}
    for statistic in (Values(), Channels(), Samples(), ZeroSamples(), EffectiveRank(), Spectrum()):
        first, second = (
            statistic.measure(Activation(TENSORS[name], LAYOUT)) for name in ("float32", "far from zero")
        )
        found[statistic.name] = summarize_state(statistic, merge_states(first, second), Known({"rms": 1.0}))
    return found
