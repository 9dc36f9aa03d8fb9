"""Any split of the data, merged in any order, gives what all the data at once gives."""

import dataclasses
import math
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fno_telemetry.statistics import legacy
from fno_telemetry.statistics.accuracy import Accuracy
from fno_telemetry.statistics.activation import Activation, Layout
from fno_telemetry.statistics.branches import Branches, Gains, Updates
from fno_telemetry.statistics.channels import Channels
from fno_telemetry.statistics.contract import (
    Known,
    Summary,
    merge_states,
    summarize_state,
)
from fno_telemetry.statistics.effective_rank import EffectiveRank
from fno_telemetry.statistics.host_transfer import on_host
from fno_telemetry.statistics.samples import Samples
from fno_telemetry.statistics.spectrum import Spectrum, SpectrumState
from fno_telemetry.statistics.subjects import SpectralInput
from fno_telemetry.statistics.truncation import Truncation
from fno_telemetry.statistics.values import Values
from fno_telemetry.statistics.zero_samples import ZeroSamples
from support.subjects import of_two

LAYOUT = Layout(0, 1, (2, 3))


@dataclass(frozen=True)
class Case:
    """A statistic and how to measure it on a tensor alone."""

    statistic: Any
    measure: Callable[[torch.Tensor], Any]


def _modes(tensor: torch.Tensor) -> torch.Tensor:
    height, width = tensor.shape[2:]
    mask = torch.zeros(height, width if tensor.is_complex() else width // 2 + 1, dtype=torch.bool)
    mask[:2, :2] = True
    return mask


def _pair(statistic: Any) -> Case:
    def measure(tensor: torch.Tensor) -> Any:
        # The partner depends on the values alone, so that it splits as the tensor does.
        return statistic.measure(
            of_two(statistic, Activation(tensor, LAYOUT), Activation(tensor * tensor - 0.5, LAYOUT))
        )

    return Case(statistic, measure)


def _alone(statistic: Any) -> Case:
    return Case(statistic, lambda tensor: statistic.measure(Activation(tensor, LAYOUT)))


CASES = {
    "values": _alone(Values()),
    "channels": _alone(Channels()),
    "samples": _alone(Samples()),
    "zero_samples": _alone(ZeroSamples()),
    "effective_rank": _alone(EffectiveRank()),
    "spectrum": _alone(Spectrum()),
    "truncation": Case(
        Truncation(), lambda x: Truncation().measure(SpectralInput(Activation(x, LAYOUT), _modes(x)))
    ),
    "branches": _pair(Branches()),
    "updates": _pair(Updates()),
    "gains": _pair(Gains()),
    "accuracy": _pair(Accuracy()),
}
every_statistic = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def _data(seed: int, samples: int, dtype: torch.dtype, holes: bool, size: tuple[int, int]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (samples, 3, *size)
    parts = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2)]
    # Unequal means and scales: a merge that ignores them is found out.
    offsets = torch.arange(samples, dtype=torch.float64).reshape(-1, 1, 1, 1) * 3
    data = parts[0] * (1 + offsets) + offsets
    if holes:
        data[torch.rand(shape, generator=generator) < 0.02] = math.nan
        data[torch.rand(shape, generator=generator) < 0.01] = math.inf
        data[torch.rand(shape, generator=generator) < 0.05] = 0
        data[:, 2] = 0
    return (torch.complex(data, parts[1]) if dtype.is_complex else data).to(dtype)


def _merged(states: list[Any], order: st.DataObject) -> Any:
    """Merge by a random tree: two random states at a time."""
    while len(states) > 1:
        first = states.pop(order.draw(st.integers(0, len(states) - 1)))
        second = states.pop(order.draw(st.integers(0, len(states) - 1)))
        states.append(merge_states(first, second))
    return states[0]


def _leaves(state: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if dataclasses.is_dataclass(state):
        for field in dataclasses.fields(state):
            yield from _leaves(getattr(state, field.name), f"{name}.{field.name}")
    elif isinstance(state, dict):
        for key in sorted(state):
            yield from _leaves(state[key], f"{name}.{key}")
    else:
        yield name, state


def _assert_same_state(found: Any, whole: Any) -> None:
    """Counts, sketches and extremes exactly; sums to 1e-6 of the largest."""
    assert type(found) is type(whole)
    pairs = list(zip(_leaves(found), _leaves(whole), strict=True))
    energies = [float(v.abs().max()) for _, v in _leaves(whole) if _inexact(v) and v.isfinite().all()]
    largest = max(energies, default=0.0)
    for (name, one), (_, other) in pairs:
        if not _inexact(other):
            assert torch.equal(torch.as_tensor(one), torch.as_tensor(other)), name
        elif name.endswith((".low", ".high", ".ends", ".extremes")) and not isinstance(whole, SpectrumState):
            assert torch.equal(one, other), name
        else:
            torch.testing.assert_close(one, other, rtol=0, atol=1e-6 * largest, msg=name)


def _inexact(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and (leaf.dtype.is_floating_point or leaf.is_complex())


def _assert_same_summary(found: Summary, whole: Summary) -> None:
    assert found.reasons == whole.reasons
    assert found.histogram == whole.histogram
    assert found.log_histogram == whole.log_histogram
    assert found.sketch == whole.sketch
    scale = whole.stats.get("rms") or 1.0
    for key, expected in whole.stats.items():
        value = found.stats[key]
        if expected is None or isinstance(expected, int):
            assert value == expected, key
        else:
            assert value is not None and abs(value - expected) <= 1e-6 * max(scale, abs(expected)), key
    if whole.spectrum is not None:
        assert found.spectrum is not None
        assert found.spectrum.fields == whole.spectrum.fields
        assert found.spectrum.fields_left_out == whole.spectrum.fields_left_out
        bands = zip(found.spectrum.bands, whole.spectrum.bands, strict=True)
        assert all(abs(one - other) <= 1e-6 for one, other in bands)


@every_statistic
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.lists(st.integers(0, 5), min_size=1, max_size=6).filter(lambda sizes: sum(sizes) > 0),
    dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.complex64]),
    holes=st.booleans(),
    order=st.data(),
)
def test_uneven_parts_merged_in_any_order_give_the_whole(
    case: Case, seed: int, sizes: list[int], dtype: torch.dtype, holes: bool, order: st.DataObject
) -> None:
    data = _data(seed, sum(sizes), dtype, holes, (4, 5))
    whole = case.measure(data)
    merged = _merged([case.measure(part) for part in data.split(sizes)], order)
    # What the whole keeps once for all positions, parts with holes of their own keep by position.
    if not isinstance(case.statistic, Samples):
        _assert_same_state(merged, whole)
    found, expected = (
        summarize_state(case.statistic, state, Known({"rms": 1.0})) for state in (merged, whole)
    )
    _assert_same_summary(found, expected)


@every_statistic
@pytest.mark.parametrize("size", [1, 3, 8])
def test_batches_of_any_size_give_the_whole(case: Case, size: int) -> None:
    data = _data(5, 8, torch.float32, False, (9, 8))
    states = [case.measure(part) for part in data.split(size)]
    merged = states[0]
    for state in states[1:]:
        merged = merge_states(merged, state)
    _assert_same_state(merged, case.measure(data))


@every_statistic
def test_merging_changes_neither_state(case: Case) -> None:
    first, second = (case.measure(_data(seed, 3, torch.float32, True, (4, 5))) for seed in (1, 2))
    kept = pickle.dumps((first, second))
    merge_states(first, second)
    for now, before in zip((first, second), pickle.loads(kept), strict=True):
        assert all(
            torch.equal(torch.as_tensor(a), torch.as_tensor(b))
            for (_, a), (_, b) in zip(_leaves(now), _leaves(before), strict=True)
        )


@every_statistic
def test_states_survive_pickle_and_the_way_to_the_host(case: Case) -> None:
    first, second = (case.measure(_data(seed, 3, torch.float32, False, (4, 5))) for seed in (1, 2))
    for way in (lambda state: pickle.loads(pickle.dumps(state)), on_host):
        merged = merge_states(way(first), way(second))
        expected = merge_states(first, second)
        one, other = (
            summarize_state(case.statistic, state, Known({"rms": 1.0})) for state in (merged, expected)
        )
        assert one == other


@every_statistic
def test_an_empty_part_adds_nothing_wherever_it_comes(case: Case) -> None:
    data = _data(3, 4, torch.float32, False, (4, 5))
    state, empty = case.measure(data), case.measure(data[:0])
    for merged in (merge_states(state, empty), merge_states(empty, state)):
        _assert_same_state(merged, state)
    nothing = merge_states(empty, case.measure(data[:0]))
    summary = summarize_state(case.statistic, nothing, Known({"rms": None}))
    assert all(summary.stats[key] is None for key in summary.reasons)
    assert "sample_variation" not in summary.stats or summary.stats["sample_variation"] is None


def test_bfloat16_batches_merge_with_float32_ones() -> None:
    narrow = _data(1, 4, torch.bfloat16, False, (4, 5))
    wide = _data(2, 4, torch.float32, False, (4, 5))
    together = torch.cat((narrow.float(), wide))
    for case in CASES.values():
        if case.statistic.name in ("branches", "updates", "gains", "accuracy"):
            continue  # the partner is computed in the tensor's own precision
        states = [case.measure(narrow), case.measure(wide)]
        for merged in (merge_states(*states), merge_states(*reversed(states))):
            _assert_same_state(merged, case.measure(together))


def test_sketches_of_parts_of_any_range_merge_to_the_very_sketch_of_the_whole() -> None:
    parts = [
        torch.linspace(1, 1 + 1e-4, 50),  # single values
        torch.linspace(1, 2, 50),
        torch.linspace(-1e-3, 1e3, 50),
        torch.tensor([1e-45, -1e-45, 0.0, -0.0, 3e38, -3e38]),
        torch.full((9,), math.nan),
        torch.empty(0),
    ]
    measured = [Values().measure(Activation(part, Layout(None, None))).sketch for part in parts]
    for count in range(1, len(parts) + 1):
        whole = Values().measure(Activation(torch.cat(parts[:count]), Layout(None, None))).sketch
        for order in (measured[:count], measured[:count][::-1]):
            merged = order[0]
            for sketch in order[1:]:
                merged = merged.merge(sketch)
            for field in ("counts", "shift", "start", "low", "high", "below", "above"):
                assert torch.equal(getattr(merged, field), getattr(whole, field)), field
            assert merged.spare == whole.spare


def test_complex_magnitudes_beyond_float32_change_no_other_element_of_the_sketch() -> None:
    generator = torch.Generator().manual_seed(0)
    data = torch.view_as_complex(torch.randn((4, 500, 2), generator=generator)) * 1e18
    data[3, 7] = complex(3e38, 3e38)
    states = [Values().measure(Activation(part, Layout(0, 1))) for part in data.split(1)]
    merged = merge_states(merge_states(states[0], states[3]), merge_states(states[1], states[2]))
    whole = Values().measure(Activation(data, Layout(0, 1)))
    _assert_same_state(merged, whole)
    stats = summarize_state(Values(), merged).stats
    assert stats["max"] == pytest.approx(math.hypot(3e38, 3e38), rel=1e-6)
    assert stats["inf_count"] == 0


def test_many_small_batches_lose_no_precision() -> None:
    generator = torch.Generator().manual_seed(0)
    data = torch.randn((2000, 1, 2, 2), generator=generator) + 1e4
    for name in ("values", "samples"):
        case = CASES[name]
        merged = case.measure(data[:1])
        for part in data[1:].split(1):
            merged = merge_states(merged, case.measure(part))
        found, whole = (summarize_state(case.statistic, s).stats for s in (merged, case.measure(data)))
        for key in ("std", "sample_variation"):
            if key in whole:
                assert found[key] == pytest.approx(whole[key], rel=1e-9)


@pytest.mark.parametrize("name", ["values", "samples"])
def test_means_are_merged_in_float64(name: str) -> None:
    first, second = torch.zeros(1, 1, 2, 2), torch.full((2, 1, 2, 2), 3.0)
    merged = merge_states(CASES[name].measure(first), CASES[name].measure(second))
    mean = merged.moments[0] if name == "values" else merged.mean
    assert mean.tolist() == pytest.approx(torch.full_like(mean, 2.0).tolist(), rel=1e-15)


def test_rows_of_the_earlier_formulas_stay_in_order() -> None:
    data = _data(4, 6, torch.float32, False, (8, 8))
    states = []
    for part in data.split(2):
        activation = Activation(part, LAYOUT)
        states.append(legacy.measure(part, activation, Values().measure(activation), True))
    merged = states[0].merge(states[1]).merge(states[2])
    assert torch.equal(merged.rows, torch.cat([state.rows for state in states]))
    alike = pickle.loads(pickle.dumps(on_host(merged)))
    assert alike.columns() == merged.columns()
    assert all(len(column) == 3 for column in merged.columns().values())
