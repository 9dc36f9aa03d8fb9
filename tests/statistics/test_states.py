"""States that are undefined, of other shapes, or on their way to the host."""

from typing import Any

import pytest
import torch

from fno_telemetry.statistics.activation import Activation, Layout
from fno_telemetry.statistics.channels import Channels
from fno_telemetry.statistics.contract import (
    Empty,
    Undefined,
    keys_of,
    merge_states,
    summarize_state,
)
from fno_telemetry.statistics.host_transfer import on_host, transfer
from fno_telemetry.statistics.samples import Samples
from fno_telemetry.statistics.spectrum import Spectrum
from fno_telemetry.statistics.values import Values


def _measured(statistic: Any, tensor: torch.Tensor) -> Any:
    return statistic.measure(Activation(tensor, Layout(0, 1, (2, 3))))


def test_what_cannot_be_measured_in_one_batch_is_undefined_in_all() -> None:
    state = _measured(Values(), torch.ones(2, 3, 4, 4))
    for merged in (
        merge_states(state, Undefined("no")),
        merge_states(Undefined("no"), state),
        merge_states(Undefined("no"), Empty()),
        merge_states(Empty(), Undefined("no")),
        merge_states(Undefined("no"), Undefined("then")),
        merge_states(Undefined("then"), Undefined("no")),
    ):
        assert merged == Undefined("no")
    summary = summarize_state(Values(), Undefined("no"))
    assert set(summary.stats) == set(keys_of(Values())) and set(summary.stats.values()) == {None}
    assert set(summary.reasons.values()) == {"no"}


@pytest.mark.parametrize(
    ("statistic", "first", "second"),
    [
        (Channels(), (2, 3, 4, 4), (2, 5, 4, 4)),
        (Samples(), (2, 3, 4, 4), (2, 3, 2, 8)),
        (Samples(), (2, 3, 4, 4), (2, 3, 4, 5)),
    ],
)
def test_states_of_other_shapes_are_not_merged_position_by_position(
    statistic: Any, first: tuple[int, ...], second: tuple[int, ...]
) -> None:
    merged = merge_states(*(_measured(statistic, torch.ones(shape)) for shape in (first, second)))
    assert isinstance(merged, Undefined)


def test_spectra_of_several_resolutions_add_up_in_any_order() -> None:
    generator = torch.Generator().manual_seed(1)
    states = [
        _measured(Spectrum(), torch.randn((2, 3, *size), generator=generator)) for size in ((8, 8), (16, 6))
    ]
    one, other = merge_states(*states), merge_states(*reversed(states))
    assert one.sizes == other.sizes == (16, 8)
    assert summarize_state(Spectrum(), one) == summarize_state(Spectrum(), other)


def test_tensors_transferred_together_come_back_one_by_one() -> None:
    tensors = [
        torch.arange(6).reshape(2, 3),
        torch.tensor(True),
        torch.empty(0, 4, dtype=torch.int64),
        torch.tensor([1 + 2j, 3]).conj(),
        torch.rand(3, 2, dtype=torch.float64).T,
        torch.rand(3, dtype=torch.bfloat16),
    ]
    arrived = transfer(tensors)
    assert all(torch.equal(a, b) and a.shape == b.shape for a, b in zip(arrived, tensors, strict=True))
    assert all(a.untyped_storage().nbytes() == a.nbytes for a in arrived)
    nested = {"a": [Undefined("no")], "b": (torch.ones(2),)}
    assert on_host(nested)["a"] == [Undefined("no")]
