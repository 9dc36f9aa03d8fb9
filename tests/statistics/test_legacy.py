"""The earlier script's formulas: numbers that old reports can be compared with."""

import math
from typing import Any

import pytest
import torch

from fno_telemetry.statistics import legacy
from fno_telemetry.statistics.activation import Activation, Layout
from fno_telemetry.statistics.sketch import RELATIVE_ERROR
from fno_telemetry.statistics.values import Values

LAYOUT = Layout(0, 1, (2, 3))
PERCENTILES = ("p50", "p95", "p99")


def _measured(
    tensor: torch.Tensor, layout: Layout = LAYOUT, rectifying: bool = True
) -> dict[str, tuple[float | None, ...]]:
    activation = Activation(tensor, layout)
    state = Values().measure(activation)
    return legacy.measure(tensor, activation, state, rectifying).columns()


def _row(tensor: torch.Tensor, layout: Layout = LAYOUT) -> dict[str, float | None]:
    return {key: values[0] for key, values in _measured(tensor, layout).items()}


def _noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


TENSORS = {
    "even": _noise(2, 3, 16, 16),
    "odd": _noise(2, 3, 15, 17),
    "small": _noise(1, 1, 2, 3),
    "large": _noise(2, 3, 64, 48) + 0.5,
    "rectified": _noise(2, 3, 16, 16).clamp(min=0),
    "bfloat16": _noise(2, 3, 16, 16).to(torch.bfloat16),
    "float16": _noise(2, 3, 16, 16).to(torch.float16),
    "float64": _noise(2, 3, 16, 16).double(),
    "1e38": _noise(2, 3, 16, 16).clamp(-2, 2) * 1e38,
    "zero": torch.zeros(2, 3, 16, 16),
    "channels last": _noise(2, 3, 16, 16).to(memory_format=torch.channels_last),
    "constant": torch.full((2, 3, 16, 16), -2.5),
    "complex": torch.complex(_noise(2, 3, 16, 16), _noise(2, 3, 16, 15)[..., :1].expand(-1, -1, -1, 16)),
    "one": torch.full((1, 1, 1, 1), 3.0),
    "NaN": torch.where(_noise(2, 3, 16, 16) > 3, math.nan, _noise(2, 3, 16, 16)),
    "inf": torch.where(_noise(2, 3, 16, 16) > 3, math.inf, _noise(2, 3, 16, 16)),
    "empty": torch.empty(0, 3, 16, 16),
}


@pytest.mark.parametrize("name", TENSORS)
def test_one_batch_equals_the_reference(name: str, reference: Any, as_array: Any) -> None:
    tensor = TENSORS[name]
    expected, found = reference.legacy(as_array(tensor)), _row(tensor)
    assert tuple(found) == legacy.KEYS
    for key, value in found.items():
        if tensor.is_complex() and key == "sparsity":
            continue  # no module that this is kept for returns complex numbers
        if expected[key] is None or value is None:
            assert value is expected[key], key
        elif key in PERCENTILES:
            assert value == pytest.approx(float(expected[key]), rel=RELATIVE_ERROR, abs=1e-30), key
        else:
            assert value == pytest.approx(float(expected[key]), rel=2e-6), key


@pytest.mark.parametrize(("size", "reading"), [(64, 66), (16, 72), (8, 40)])
def test_a_constant_field_reads_what_it_always_read(size: int, reading: float) -> None:
    assert _row(torch.full((2, 3, size, size), 0.7))["low_freq_ratio"] == pytest.approx(reading, rel=1e-9)


def test_a_plane_wave_reads_66_and_its_mirror_image_0() -> None:
    place = torch.arange(64) * (2 * math.pi / 64)
    wave = torch.cos(place[:, None] + place[None, :])
    mirrored = torch.cos(-place[:, None] + place[None, :])
    assert _row(wave[None, None])["low_freq_ratio"] == pytest.approx(66, rel=1e-5)
    assert _row(mirrored[None, None])["low_freq_ratio"] == pytest.approx(0, abs=1e-5)


def test_space_known_otherwise_changes_no_earlier_number() -> None:
    tensor = _noise(2, 6, 8, 10)
    for layout in (Layout(0, 3, (1, 2)), Layout(None, None), Layout(0, 1, (3,)), Layout(0, 1, (3, 2))):
        found = _row(tensor, layout)
        assert found == {key: pytest.approx(value, rel=1e-6) for key, value in _row(tensor).items()}


def test_sparsity_and_images_are_kept_where_they_apply() -> None:
    assert "sparsity" not in _measured(_noise(2, 3, 8, 8), rectifying=False)
    flat = _measured(_noise(4, 8), Layout(0, 1))
    assert "low_freq_ratio" not in flat and "sparsity" in flat


def test_a_value_that_would_be_nan_is_null_in_its_place() -> None:
    states = []
    for tensor in (TENSORS["even"], TENSORS["NaN"], TENSORS["even"]):
        activation = Activation(tensor, LAYOUT)
        states.append(legacy.measure(tensor, activation, Values().measure(activation), True))
    columns = states[0].merge(states[1]).merge(states[2]).columns()
    for values in columns.values():
        assert [value is None for value in values] == [False, True, False]


def test_a_nearly_constant_magnitude_of_both_signs_keeps_its_spread(reference: Any, as_array: Any) -> None:
    noise = _noise(2, 3, 16, 16)
    tensor = torch.sign(noise) * (1 + 1e-4 * noise)
    expected = reference.legacy(as_array(tensor))["std"]
    assert _row(tensor)["std"] == pytest.approx(expected, rel=1e-6)
