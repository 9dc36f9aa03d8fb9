"""The effective rank of positions × channels: cases whose answer is known."""

import math
from typing import Any

import pytest
import torch

from fno_telemetry.statistics.activation import Activation, Layout
from fno_telemetry.statistics.contract import Empty, Undefined, merge_states, summarize_state
from fno_telemetry.statistics.effective_rank import EffectiveRank
from fno_telemetry.testing.statistics import check_statistic

LAYOUT = Layout(0, 1, (2, 3))


def _noise(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


def _rank(tensor: torch.Tensor, layout: Layout = LAYOUT) -> Any:
    summary = summarize_state(EffectiveRank(), EffectiveRank().measure(Activation(tensor, layout)))
    value = summary.stats["effective_rank"]
    return value if value is not None else summary.reasons["effective_rank"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
@pytest.mark.parametrize("directions", [1, 3, 7])
def test_equally_strong_directions_are_counted(directions: int, dtype: torch.dtype) -> None:
    wide = torch.complex128 if dtype.is_complex else torch.float64
    basis = torch.linalg.qr(_noise(24, directions, dtype=wide))[0]  # over channels
    over_positions = torch.linalg.qr(_noise(4 * 36, directions, dtype=wide))[0]
    fields = (over_positions @ basis.mT).reshape(4, 6, 6, 24).movedim(-1, 1)
    assert _rank((1e3 * fields).to(dtype)) == pytest.approx(directions, rel=1e-4)


def test_singular_values_count_by_their_entropy() -> None:
    fields = torch.zeros(1, 3, 2, 2)
    fields[0, 0, 0, 0], fields[0, 1, 0, 1], fields[0, 2, 1, 0] = 2, -1, 1
    entropy = -(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25))
    assert _rank(fields) == pytest.approx(math.exp(entropy), rel=1e-12)


def test_copies_of_one_channel_have_rank_one_to_the_last_digits() -> None:
    fields = _noise(4, 1, 16, 16) * torch.linspace(-3, 5, 64).reshape(1, 64, 1, 1)
    # What float32 rounds off is no direction.
    assert _rank(fields) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("scale", [1e-38, 1e-3, 1e35])
def test_scale_changes_nothing(scale: float) -> None:
    fields = _noise(3, 8, 5, 5)
    assert _rank(fields * scale) == pytest.approx(_rank(fields), rel=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("shape", [(6, 5, 40, 41), (6, 30, 200), (6, 20)])
def test_batches_of_any_size_give_the_same_positions(size: int, shape: tuple[int, ...]) -> None:
    layout = Layout(0, 1, tuple(range(2, len(shape))))
    fields = _noise(*shape) * torch.arange(1.0, shape[1] + 1).reshape(1, -1, *(1 for _ in shape[2:]))
    states = [EffectiveRank().measure(Activation(part, layout)) for part in fields.split(size)]
    merged: Any = states[0]
    for state in states[1:]:
        merged = merge_states(merged, state)
    whole: Any = EffectiveRank().measure(Activation(fields, layout))
    torch.testing.assert_close(merged.gram, whole.gram, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize(("channels", "taken"), [(6, 64), (40, 160), (200, 512)])
def test_positions_of_each_sample_are_spread_evenly(channels: int, taken: int, reference: Any) -> None:
    fields = _noise(2, channels, 64, 64)
    fields[:, 0] = 1
    fields[:, 1] = 1
    fields[:, 1, 32:] = 0  # as many zeros among the positions that are taken as among all
    state: Any = EffectiveRank().measure(Activation(fields, LAYOUT))
    assert float(state.gram[0, 0]) == 2 * taken
    assert float(state.gram[1, 1]) == pytest.approx(taken, abs=2)
    assert _rank(fields) == pytest.approx(reference.effective_rank(fields.double().numpy(), 0, 1), rel=1e-9)


def test_positions_with_a_wrong_element_are_left_out() -> None:
    fields = _noise(2, 4, 3, 5)
    shorter = fields[:, :, :, 1:]
    fields[0, 2, :, 0], fields[1, 0, :, 0] = math.nan, math.inf
    assert _rank(fields) == pytest.approx(_rank(shorter), rel=1e-9)


@pytest.mark.parametrize(
    ("tensor", "layout", "reason"),
    [
        (torch.ones(2, 3), Layout(0, None), "the tensor has no channel axis"),
        (torch.ones(0, 3), Layout(0, 1), "the tensor has no elements"),
        (torch.ones(2, 513), Layout(0, 1), "the tensor has more than 512 channels"),
        (torch.zeros(2, 3), Layout(0, 1), "the finite values are zero, or their squares underflow float64"),
        (
            torch.full((2, 3), math.nan),
            Layout(0, 1),
            "the finite values are zero, or their squares underflow float64",
        ),
        (torch.full((2, 3), 1e300, dtype=torch.float64), Layout(0, 1), "the squares overflow float64"),
    ],
)
def test_it_says_why_there_is_no_number(tensor: torch.Tensor, layout: Layout, reason: str) -> None:
    assert _rank(tensor, layout) == reason


def test_another_number_of_channels_is_no_longer_measured() -> None:
    first, second = (EffectiveRank().measure(Activation(torch.ones(2, c), Layout(0, 1))) for c in (3, 4))
    assert isinstance(merge_states(first, second), Undefined)
    assert isinstance(EffectiveRank().measure(Activation(torch.ones(0, 3), Layout(0, 1))), Empty)


def test_the_contract_holds_against_the_reference(reference: Any, as_array: Any) -> None:
    def slow(tensor: torch.Tensor) -> dict[str, float | None]:
        return {"effective_rank": reference.effective_rank(as_array(tensor), 0, 1)}

    check_statistic(EffectiveRank(), slow)
