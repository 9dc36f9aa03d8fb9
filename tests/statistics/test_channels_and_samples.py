"""Dead and constant channels, and how much samples differ: cases whose answer is known."""

import math
from typing import Any

import pytest
import torch

from fno_telemetry.statistics.activation import Activation, Layout
from fno_telemetry.statistics.channels import Channels
from fno_telemetry.statistics.contract import Known, Summary, summarize_state
from fno_telemetry.statistics.samples import Samples
from fno_telemetry.statistics.values import Values
from fno_telemetry.statistics.zero_samples import ZeroSamples

LAYOUT = Layout(0, 1, (2, 3))


def _noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def _channels(tensor: torch.Tensor, layout: Layout = LAYOUT) -> Summary:
    activation = Activation(tensor, layout)
    known = summarize_state(Values(), Values().measure(activation)).stats
    return summarize_state(Channels(), Channels().measure(activation), Known(known))


def _variation(tensor: torch.Tensor, layout: Layout = LAYOUT) -> Any:
    summary = summarize_state(Samples(), Samples().measure(Activation(tensor, layout)))
    value = summary.stats["sample_variation"]
    return value if value is not None else summary.reasons["sample_variation"]


def test_a_layer_that_is_zero_everywhere_is_dead() -> None:
    assert _channels(torch.zeros(2, 3, 4, 4)).stats == {
        "dead_channel_fraction": 1,
        "constant_channel_fraction": 1,
        "dormant_fraction": 1,
        "channel_rms_min": 0,
        "channel_rms_max": 0,
        "channel_rms_ratio": None,
    }


def test_dead_channels_are_far_below_the_rms_of_the_layer() -> None:
    tensor = _noise(2, 4, 8, 8)
    tensor[:, 0] = 0
    tensor[:, 1] *= 1e-8
    tensor[:, 2] *= 1e-4
    stats = _channels(tensor).stats
    assert stats["dead_channel_fraction"] == 0.5
    assert stats["constant_channel_fraction"] == 0.25


def test_a_channel_that_wakes_for_one_sample_is_alive() -> None:
    tensor = _noise(4, 2, 8, 8)
    tensor[:3, 0] = 0
    tensor[3, 0] = 0
    tensor[3, 0, 0, 0] = 1
    stats = _channels(tensor).stats
    assert stats["dead_channel_fraction"] == 0 and stats["constant_channel_fraction"] == 0


def test_constant_channels_hold_one_value_over_samples_and_space() -> None:
    tensor = _noise(3, 4, 8, 8)
    tensor[:, 0] = 1e4
    tensor[:, 1] = torch.arange(3.0).reshape(3, 1, 1)  # constant in space, not over samples
    tensor[:, 2] = 7 + 1e-7 * tensor[:, 2]
    assert _channels(tensor).stats["constant_channel_fraction"] == 0.5


def test_an_imaginary_part_keeps_a_channel_from_being_constant_or_dead() -> None:
    real = torch.ones(2, 3, 8, 8)
    assert _channels(torch.complex(real, torch.zeros_like(real))).stats["constant_channel_fraction"] == 1
    assert _channels(torch.complex(real, _noise(2, 3, 8, 8))).stats["constant_channel_fraction"] == 0
    turning = torch.polar(real, _noise(2, 3, 8, 8))  # |z| is constant, z is not
    assert _channels(turning).stats["constant_channel_fraction"] == 0
    imaginary = torch.complex(torch.zeros_like(real), real)
    assert _channels(imaginary).stats["dead_channel_fraction"] == 0


def test_channels_without_a_finite_element_do_not_count() -> None:
    tensor = _noise(2, 4, 8, 8)
    tensor[:, 0] = math.nan
    tensor[:, 1] = 0
    tensor[0, 1] = math.inf
    stats = _channels(tensor).stats
    assert stats["dead_channel_fraction"] == pytest.approx(1 / 3)
    assert stats["constant_channel_fraction"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("tensor", "layout", "dead", "constant"),
    [
        (
            torch.ones(2, 3),
            Layout(0, None),
            "the tensor has no channel axis",
            "the tensor has no channel axis",
        ),
        (torch.ones(0, 3), Layout(0, 1), "the tensor has no elements", "the tensor has no elements"),
        (torch.full((2, 3), math.nan), Layout(0, 1), "no channel holds", "no channel holds"),
        (torch.ones(1, 3), Layout(0, 1), None, "a channel has only one element"),
    ],
)
def test_channels_say_why_they_have_no_number(
    tensor: torch.Tensor, layout: Layout, dead: str | None, constant: str
) -> None:
    summary = _channels(tensor, layout)
    expected = {"dead_channel_fraction": dead, "constant_channel_fraction": constant}
    for key, reason in expected.items():
        assert (summary.stats[key] is None) == (reason is not None)
        assert reason is None or summary.reasons[key].startswith(reason)


def test_dead_channels_are_undefined_where_the_rms_is() -> None:
    state = Channels().measure(Activation(torch.ones(2, 3), Layout(0, 1)))
    summary = summarize_state(Channels(), state, Known({"rms": None}))
    assert summary.stats["dead_channel_fraction"] is None
    assert summary.reasons == {"dead_channel_fraction": "the layer has no rms"}


def test_the_rms_of_each_channel_is_over_samples_and_space() -> None:
    tensor = torch.ones(2, 4, 8, 8)
    tensor[0, 0], tensor[1, 0] = 6, 8
    tensor[:, 1] = -0.5
    tensor[:, 2] = math.nan
    tensor[1, 3] = math.nan
    summary = _channels(tensor)
    assert summary.channel_rms == (pytest.approx(50**0.5), 0.5, None, 1)
    sizes = [summary.stats[f"channel_rms_{name}"] for name in ("min", "max", "ratio")]
    assert sizes == [0.5, pytest.approx(50**0.5), pytest.approx(2 * 50**0.5)]


def test_the_rms_of_a_complex_channel_is_that_of_its_magnitude() -> None:
    tensor = torch.complex(torch.full((2, 2, 4, 4), 3.0), torch.full((2, 2, 4, 4), 4.0))
    tensor[:, 1] *= 1j
    assert _channels(tensor).channel_rms == (5, 5)


def test_the_rms_is_listed_for_up_to_512_channels() -> None:
    for number, listed in ((512, True), (513, False)):
        summary = _channels(_noise(2, number), Layout(0, 1))
        assert (summary.channel_rms is not None) == listed
        assert summary.stats["channel_rms_ratio"] is not None


def test_a_zero_channel_has_no_ratio() -> None:
    tensor = _noise(2, 4, 8, 8)
    tensor[:, 0] = 0
    summary = _channels(tensor)
    assert summary.stats["channel_rms_min"] == 0
    assert summary.reasons == {"channel_rms_ratio": "a channel is zero"}


def test_dormant_channels_are_far_below_the_mean_of_all_by_their_mean_magnitude() -> None:
    tensor = torch.ones(2, 5, 8, 8)
    tensor[:, 0] = -0.0249 * 0.8  # of a mean of about 0.8
    tensor[:, 1] = 0.03
    tensor[:, 2] = 0
    tensor[0, 2, 0, 0] = 2  # alive in one place, and dormant by its mean
    tensor[:, 3:] = 2
    assert _channels(tensor).stats["dormant_fraction"] == pytest.approx(2 / 5)
    assert _channels(1e-30 * tensor).stats["dormant_fraction"] == pytest.approx(2 / 5)


def _zero_samples(tensor: torch.Tensor, layout: Layout = LAYOUT) -> Any:
    summary = summarize_state(ZeroSamples(), ZeroSamples().measure(Activation(tensor, layout)))
    value = summary.stats["zero_sample_fraction"]
    return value if value is not None else summary.reasons["zero_sample_fraction"]


def test_a_sample_is_zero_if_every_element_is_exactly_zero() -> None:
    tensor = _noise(8, 3, 8, 8)
    tensor[1], tensor[2], tensor[5], tensor[6] = 0, -0.0, 0, 0
    tensor[5, 2, 7, 7] = 1e-45
    assert _zero_samples(tensor) == 3 / 8
    tensor[6, 0, 0, 0] = math.nan
    assert _zero_samples(tensor) == 2 / 8
    assert _zero_samples(torch.complex(torch.zeros_like(tensor), tensor)) == 2 / 8
    assert _zero_samples(torch.zeros(3, 4), Layout(0, 1)) == 1


def test_samples_without_an_axis_or_elements_say_so() -> None:
    assert _zero_samples(torch.zeros(3, 4), Layout(None, 1)) == "the tensor has no sample axis"
    assert _zero_samples(torch.zeros(0, 4), Layout(0, 1)) == "the tensor has no elements"


def test_a_layer_that_ignores_its_input_does_not_vary() -> None:
    assert _variation(_noise(1, 3, 8, 8).expand(5, -1, -1, -1)) == 0


def test_variation_is_relative_to_the_mean_square() -> None:
    pattern = _noise(1, 3, 64, 64)
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0]).reshape(4, 1, 1, 1)
    assert _variation(pattern * signs) == pytest.approx(1)
    assert _variation(torch.cat((pattern * 4, pattern * 2))) == pytest.approx(math.sqrt(1 / 10))
    large = 1e4 + _noise(200, 3, 8, 8)
    assert _variation(large) == pytest.approx(1e-4, rel=0.05)


def test_the_imaginary_part_varies_too() -> None:
    real = torch.ones(4, 3, 8, 8)
    assert _variation(torch.complex(real, torch.zeros_like(real))) == 0
    turning = torch.polar(real, torch.tensor([0.0, 0.5, 1.0, 1.5]).reshape(4, 1, 1, 1) * math.pi)
    assert _variation(turning) == pytest.approx(1)


@pytest.mark.parametrize("scale", [1e38, 1e-38])
def test_scaling_changes_no_variation(scale: float) -> None:
    tensor = _noise(5, 3, 8, 8).clamp(-3, 3)
    assert _variation(tensor * scale) == pytest.approx(_variation(tensor), rel=1e-5)


def test_elements_that_are_not_finite_are_left_out_position_by_position() -> None:
    tensor = _noise(4, 3, 8, 8)
    holed = tensor.clone()
    holed[0, 0, 0, 0], holed[2, 1] = math.nan, math.inf
    array = holed.double().flatten(1)
    varying, square = 0.0, 0.0
    for position in array.T:
        finite = position[position.isfinite()]
        varying += float((finite - finite.mean()).square().sum())
        square += float(finite.square().sum())
    assert _variation(holed) == pytest.approx(math.sqrt(varying / square), rel=1e-7)


def test_one_finite_sample_is_no_proof_of_ignorance() -> None:
    tensor = _noise(2, 3, 8, 8)
    tensor[1] = math.nan
    assert _variation(tensor) == "needs at least two samples that are finite"
    partly = _noise(2, 3, 8, 8)
    expected = _variation(partly[:, 1:])
    partly[1, 0] = math.nan
    assert _variation(partly) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize(
    ("tensor", "layout", "reason"),
    [
        (torch.ones(3, 4), Layout(None, 1), "the tensor has no sample axis"),
        (torch.ones(1, 4), Layout(0, 1), "needs at least two samples"),
        (torch.ones(0, 4), Layout(0, 1), "the tensor has no elements"),
        (torch.zeros(3, 4), Layout(0, 1), "the values are zero, or their squares underflow float64"),
        (torch.full((3, 4), 1e300, dtype=torch.float64), Layout(0, 1), "the squares overflow float64"),
    ],
)
def test_variation_says_why_it_has_no_number(tensor: torch.Tensor, layout: Layout, reason: str) -> None:
    assert _variation(tensor, layout) == reason


def test_the_memory_that_a_mean_field_keeps_is_reported() -> None:
    state: Any = Samples().measure(Activation(_noise(4, 3, 8, 8), LAYOUT))
    assert state.memory_bytes == 3 * 8 * 8 * 8 + 8
