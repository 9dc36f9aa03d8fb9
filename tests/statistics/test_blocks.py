"""Branches where they meet, updates and gains: the reference, and cases whose answer is known."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from fno_telemetry.statistics.activation import Activation, Layout
from fno_telemetry.statistics.branches import Branches, Gains, Updates
from fno_telemetry.statistics.contract import Summary, Undefined, keys_of, summarize_state
from fno_telemetry.statistics.subjects import BlockCall, BranchSum
from support.subjects import of_two

LAYOUT = Layout(0, 1, (2, 3))
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128]
Maker = Callable[[torch.Tensor], torch.Tensor]


def _noise(seed: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    wide = torch.complex128 if dtype.is_complex else torch.float64
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=wide).to(dtype)


def _summary(statistic: Any, first: torch.Tensor, second: torch.Tensor, layout: Layout = LAYOUT) -> Summary:
    state = statistic.measure(of_two(statistic, Activation(first, layout), Activation(second, layout)))
    summary = summarize_state(statistic, state)
    assert tuple(summary.stats) == keys_of(statistic)
    assert set(summary.reasons) == {key for key, value in summary.stats.items() if value is None}
    return summary


def _holed(tensor: torch.Tensor) -> torch.Tensor:
    changed = tensor.clone()
    changed.view(-1)[3], changed.view(-1)[70] = math.nan, math.inf
    return changed


KINDS: dict[str, tuple[Maker, Maker]] = {
    "normal": (lambda s: s, lambda t: 0.3 * t),
    "with means": (lambda s: s + 5, lambda t: t - 300),
    "with holes": (_holed, lambda t: t),
    "with holes in both": (_holed, lambda t: _holed(t.flip(0)).flip(0)),
    "gated to zero": (lambda s: s * 0, lambda t: t),
    "constant beside noise": (lambda s: s, lambda t: torch.full_like(t, 0.7)),
    "both constant": (lambda s: s * 0 + 3, lambda t: t * 0 - 1),
    "huge": (lambda s: s.clone().fill_(1) * 1e38 + s * 1e37, lambda t: t * 1e37),
    "tiny": (lambda s: s * 1e-37, lambda t: t * 1e-37),
    "huge beside tiny": (lambda s: s * 1e37, lambda t: t * 1e-30),
    "cancelling": (lambda s: s, lambda t: t),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("shape", "space"),
    [((3, 4, 8, 9), (2, 3)), ((2, 3, 50), (2,)), ((2, 2, 4, 5, 6), (2, 3, 4)), ((2, 6, 8, 3), (1, 2))],
    ids=str,
)
def test_block_statistics_equal_the_reference(
    shape: tuple[int, ...],
    space: tuple[int, ...],
    kind: str,
    dtype: torch.dtype,
    reference: Any,
    as_array: Any,
) -> None:
    makers = KINDS[kind]
    s, t = (make(_noise(seed, shape, dtype)) for seed, make in enumerate(makers))
    if kind == "cancelling":
        t = -s
    one, other = as_array(s), as_array(t)
    channel = next(axis for axis in (1, 3) if axis not in space)
    layout = Layout(0, channel, space)
    found = _summary(Branches(), s, t, layout).stats
    for key, expected in reference.branches(one, other, space).items():
        assert found[key] == (None if expected is None else pytest.approx(expected, rel=1e-9)), key
    found = _summary(Updates(), s, t, layout).stats | _summary(Gains(), s, t, layout).stats
    expected_ratio, expected_gain = reference.update_ratio(one, other), reference.gain(one, other)
    for key, expected in (("update_ratio", expected_ratio), ("gain", expected_gain)):
        assert found[key] == (None if expected is None else pytest.approx(expected, rel=1e-6)), key


def test_a_branch_gated_to_zero_reads_zero() -> None:
    stats = _summary(Branches(), torch.zeros(2, 3, 8, 8), _noise(1, (2, 3, 8, 8))).stats
    assert (stats["spectral_share"], stats["spectral_local_ratio"]) == (0, 0)
    assert (stats["branch_cosine"], stats["branch_coherence"]) == (None, pytest.approx(1))


def test_a_bias_does_not_make_a_dead_branch_alive() -> None:
    bias = _noise(2, (1, 3, 1, 1)) * 100
    stats = _summary(Branches(), bias.expand(2, 3, 8, 8), _noise(1, (2, 3, 8, 8))).stats
    assert stats["spectral_share"] == 0


def test_a_field_that_is_left_out_leaves_its_mean_out_too() -> None:
    s, t = _noise(1, (2, 3, 8, 8)), _noise(2, (2, 3, 8, 8))
    s[0, 0] += 1e9
    s[0, 0, 0, 0] = math.nan
    found = _summary(Branches(), s, t).stats
    s[0, 0], t[0, 0] = math.nan, math.nan
    assert found == _summary(Branches(), s, t).stats


@pytest.mark.parametrize(("noise", "alive"), [(1e-13, False), (1e-11, True)])
def test_what_rounding_leaves_around_a_mean_is_no_branch(noise: float, alive: bool) -> None:
    field = _noise(1, (2, 3, 8, 8), torch.float64)
    stats = _summary(Branches(), 1 + math.sqrt(noise) * field, field).stats
    assert (stats["spectral_share"] != 0) == alive


def test_branches_that_add_up_and_branches_that_cancel() -> None:
    field = _noise(1, (2, 3, 8, 8))
    together = _summary(Branches(), field, 3 * field).stats
    assert together["branch_cosine"] == pytest.approx(1, abs=1e-12)
    assert together["branch_coherence"] == pytest.approx(1, abs=1e-12)
    assert together["spectral_local_ratio"] == pytest.approx(1 / 3)
    assert together["spectral_share"] == pytest.approx(0.1)
    against = _summary(Branches(), field, -field).stats
    assert against["branch_cosine"] == pytest.approx(-1, abs=1e-12)
    assert against["branch_coherence"] == 0
    assert against["spectral_share"] == pytest.approx(0.5)


def test_a_real_branch_meets_a_complex_one() -> None:
    real, other = _noise(1, (2, 3, 8, 8)), _noise(2, (2, 3, 8, 8), torch.complex64)
    found = _summary(Branches(), real, other).stats
    expected = _summary(Branches(), real.to(torch.complex64), other).stats
    assert found == pytest.approx(dict(expected), rel=1e-12)
    assert _summary(Updates(), real, other) == _summary(Updates(), real.to(torch.complex64), other)


def test_an_imaginary_part_counts_in_blocks() -> None:
    zero, field = torch.zeros(2, 3, 8, 8), _noise(1, (2, 3, 8, 8))
    imaginary = torch.complex(zero, field)
    assert _summary(Branches(), imaginary, imaginary).stats["spectral_share"] == pytest.approx(0.5)
    assert _summary(Updates(), imaginary, 2 * imaginary).stats["update_ratio"] == pytest.approx(1)
    assert _summary(Gains(), imaginary, 2 * imaginary).stats["gain"] == pytest.approx(2)


def test_an_update_is_measured_in_the_precision_it_happened_in() -> None:
    before = torch.ones(2, 3, 8, 8, dtype=torch.bfloat16)
    after = before + 1e-3  # lost: bfloat16 holds no 1.001
    assert _summary(Updates(), before, after).stats["update_ratio"] == 0


def test_a_gain_compares_tensors_of_any_two_shapes() -> None:
    before, after = (
        Activation(torch.ones(2, 3, 8, 8), LAYOUT),
        Activation(torch.full((2, 5), 3.0), Layout(0, 1)),
    )
    assert summarize_state(Gains(), Gains().measure(BlockCall(before, after))).stats == {"gain": 3.0}


def test_a_gain_needs_no_squares_that_fit_in_float64() -> None:
    before = _noise(3, (2, 3, 8, 8)).double() * 1e300
    assert _summary(Gains(), before, before / 2).stats["gain"] == 0.5
    tiny = torch.full((2, 3, 8, 8), 1e-300, dtype=torch.float64)
    assert _summary(Gains(), tiny, before).reasons == {"gain": "the result overflows float64"}


@pytest.mark.parametrize(
    ("statistic", "first", "second", "reason"),
    [
        (Branches(), torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8), "both branches are constant in space"),
        (Branches(), torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 4), "the branches have different shapes"),
        (Branches(), torch.full((2, 3, 8, 8), math.nan), torch.zeros(2, 3, 8, 8), "every field holds"),
        (
            Branches(),
            _noise(1, (2, 3, 8, 8)).double() * 1e300,
            torch.zeros(2, 3, 8, 8),
            "the squares overflow",
        ),
        (Branches(), torch.zeros(0, 3, 8, 8), torch.zeros(0, 3, 8, 8), "the tensor has no elements"),
        (Updates(), torch.zeros(2, 3, 8, 8), torch.ones(2, 3, 8, 8), "the block's input is zero"),
        (Updates(), torch.zeros(2, 3, 8, 8), torch.ones(2, 3, 8, 4), "the residual sum changed the shape"),
        (Updates(), torch.full((2, 3, 8, 8), math.inf), torch.ones(2, 3, 8, 8), "no element is finite"),
        (Updates(), torch.zeros(0, 3, 8, 8), torch.zeros(0, 3, 8, 8), "the tensor has no elements"),
        (Gains(), torch.zeros(2, 3, 8, 8), torch.ones(2, 3, 8, 8), "the block's input is zero"),
        (Gains(), torch.ones(2, 3, 8, 8), torch.full((2, 3, 8, 8), math.nan), "no element is finite"),
        (Gains(), torch.ones(0, 3, 8, 8), torch.ones(0, 3, 8, 8), "no element is finite"),
    ],
)
def test_what_has_no_number_has_a_reason(
    statistic: Any, first: torch.Tensor, second: torch.Tensor, reason: str
) -> None:
    summary = _summary(statistic, first, second)
    assert set(summary.stats.values()) == {None}
    assert all(text.startswith(reason) for text in summary.reasons.values())


def test_branches_that_meet_without_space_are_undefined() -> None:
    layout = Layout(0, 1)
    one = Activation(torch.ones(2, 3), layout)
    assert Branches().measure(BranchSum(one, one)) == Undefined(
        "no spatial axes are known for the branch sum"
    )


def test_large_blocks_are_summed_whole() -> None:
    s, t = _noise(1, (3, 20, 64, 65)) + 2, _noise(2, (3, 20, 64, 65)) - 1
    pieces = [(s[i : i + 1, j : j + 1], t[i : i + 1, j : j + 1]) for i in range(3) for j in range(20)]
    for statistic in (Branches(), Updates(), Gains()):
        measured = [
            statistic.measure(of_two(statistic, *(Activation(x, LAYOUT) for x in pair))) for pair in pieces
        ]
        merged: Any = measured[0]
        for state in measured[1:]:
            merged = merged.merge(state)
        found = _summary(statistic, s, t).stats
        assert found == pytest.approx(dict(summarize_state(statistic, merged).stats), rel=1e-9)
