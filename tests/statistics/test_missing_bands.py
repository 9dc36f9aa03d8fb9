"""How much of a block's input and output is in bands of the target that the output misses."""

import math
from typing import Any

import pytest
import torch

from fno_telemetry.records import BandAccuracy
from fno_telemetry.statistics.activation import Activation, Layout
from fno_telemetry.statistics.contract import Known, Summary, merge_states, summarize_state
from fno_telemetry.statistics.frequency_bands import band_edges
from fno_telemetry.statistics.missing_bands import MissingBands
from fno_telemetry.statistics.subjects import BlockCall


def _bands(sizes: tuple[int, ...], missing: tuple[int, ...], energies: dict[int, float] | None = None) -> Any:
    """Bands of a target with equal energies, or with these, of which the output has all or a tenth."""
    edges = band_edges(len(sizes))
    ratio = tuple(0.1 if index - 1 in missing else 1.0 for index in range(len(edges)))
    target = tuple((energies or {}).get(index - 1, 1.0) for index in range(len(edges)))
    return BandAccuracy(
        sizes=sizes,
        band_edges=edges,
        target=target,
        output=target,
        error=target,
        band_error=ratio,
        spectrum_ratio=ratio,
        band_coherence=ratio,
    )


def _noise(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _measure(before: torch.Tensor, after: torch.Tensor) -> Any:
    sides = (Activation(x, Layout(0, 1, tuple(range(2, x.ndim)))) for x in (before, after))
    return MissingBands().measure(BlockCall(*sides))


def _share(before: torch.Tensor, after: torch.Tensor, bands: Any) -> Summary:
    return summarize_state(MissingBands(), _measure(before, after), Known(bands=bands))


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=["real", "complex"])
@pytest.mark.parametrize(
    ("sizes", "own"),
    [
        ((16,), (33,)),
        ((12, 15), (12, 15)),
        ((12, 15), (24, 30)),
        ((16, 17), (9, 8)),
        ((16, 16), (16, 32)),
        ((8, 9, 10), (10, 8, 9)),
    ],
    ids=str,
)
def test_shares_are_by_cycles_per_field(
    sizes: tuple[int, ...], own: tuple[int, ...], dtype: torch.dtype, reference: Any, as_array: Any
) -> None:
    before, after = _noise((2, 3, *sizes), dtype) + 1, _noise((2, 2, *own), dtype, 2)
    missing = (3, 4, 9)
    found = _share(before, after, _bands(sizes, missing)).stats
    space = tuple(range(2, 2 + len(sizes)))
    for name, tensor in (("missing_band_in", before), ("missing_band_out", after)):
        expected = reference.missing_share(as_array(tensor), space, sizes, missing)
        assert found[name] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("factor", [1 / 2, 1, 2])
def test_a_wave_keeps_its_band_where_a_block_resamples(factor: float) -> None:
    def wave(size: int) -> torch.Tensor:
        place = 2 * math.pi * torch.arange(size) / size
        return torch.cos(3 * place[:, None] - 4 * place)[None, None]

    # |f| is 5/32: the upper edge of the fifth band.
    found = _share(wave(32), wave(int(32 * factor)), _bands((32, 32), (4,)))
    assert found.stats == pytest.approx({"missing_band_in": 1, "missing_band_out": 1}, abs=1e-6)
    found = _share(wave(32), wave(int(32 * factor)), _bands((32, 32), (3, 5)))
    assert found.stats == pytest.approx({"missing_band_in": 0, "missing_band_out": 0}, abs=1e-6)


def test_only_bands_with_a_hundredth_of_the_target_can_be_missing() -> None:
    energies = dict.fromkeys(range(23), 1.0) | {3: 0.2, 4: 0.3}
    assert _bands((32, 32), (3, 4), energies).missing == (4,)
    # The mean of the fields has no part in it.
    assert _bands((32, 32), (3, 4), energies | {-1: 1e9}).missing == (4,)


@pytest.mark.parametrize(
    ("before", "after", "bands", "reasons"),
    [
        (
            _noise((2, 1, 8, 8)),
            _noise((2, 1, 8, 8)),
            _bands((8, 8), ()),
            dict.fromkeys(("missing_band_in", "missing_band_out"), "the output misses no band of the target"),
        ),
        (
            _noise((2, 1, 8, 8)),
            _noise((2, 1, 8, 8)),
            "the target is zero",
            dict.fromkeys(("missing_band_in", "missing_band_out"), "the target is zero"),
        ),
        (
            torch.ones(2, 1, 8, 8),
            _noise((2, 1, 8)),
            _bands((8, 8), (3,)),
            {
                "missing_band_in": "the fields are constant in space",
                "missing_band_out": "the block has another number of spatial axes than the target",
            },
        ),
        (
            _noise((2, 3)),
            _noise((0, 1, 8, 8)),
            _bands((8, 8), (3,)),
            {
                "missing_band_in": "no spatial axes are known",
                "missing_band_out": "the tensor has no elements",
            },
        ),
    ],
    ids=["nothing missing", "no bands", "constant", "no space"],
)
def test_what_is_undefined_says_why(
    before: torch.Tensor, after: torch.Tensor, bands: Any, reasons: dict[str, str]
) -> None:
    found = _share(before, after, bands)
    assert dict(found.stats) == dict.fromkeys(("missing_band_in", "missing_band_out"))
    assert found.reasons == reasons


def test_one_side_of_another_size_leaves_the_other_one_alone() -> None:
    first = _measure(_noise((2, 1, 8, 8)), _noise((2, 1, 8, 8)))
    second = _measure(_noise((2, 1, 8, 8), seed=2), _noise((2, 1, 16, 16)))
    found = summarize_state(MissingBands(), merge_states(first, second), Known(bands=_bands((8, 8), (3,))))
    assert found.stats["missing_band_in"] is not None
    assert found.reasons == {"missing_band_out": "the size of the fields changed between batches"}
