"""Large tensors of half precision have the numbers of their float32 copies, which are never made whole."""

import tracemalloc
from collections.abc import Callable

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from fno_telemetry import plugins
from fno_telemetry.statistics import activation as activations
from fno_telemetry.statistics.activation import Activation, Layout
from fno_telemetry.statistics.branches import Branches, Updates
from fno_telemetry.statistics.contract import Known, summarize_state
from fno_telemetry.statistics.kernels import narrow_values
from fno_telemetry.statistics.shares import Shares
from fno_telemetry.statistics.subjects import BranchSum, ResidualUpdate

IMAGES = Layout(0, 1, (2, 3))
OF_TENSORS = ("values", "channels", "samples", "spectrum")
DTYPES = (torch.float16, torch.bfloat16, torch.float8_e5m2)
SHAPES = {
    "images": ((3, 5, 33, 40), IMAGES),
    "fields longer than a block": ((2, 1, 130, 70), IMAGES),
    "channels last": ((3, 33, 40, 5), Layout(0, 3, (1, 2))),
    "no space": ((700, 30), Layout(0, 1)),
    "no samples": ((5, 33, 40), Layout(None, 0, (1, 2))),
}


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activations, "HOST_BLOCK", 16)
    monkeypatch.setattr(narrow_values, "_BLOCK", 2000)


def make(shape: tuple[int, ...], dtype: torch.dtype, data: str = "signed") -> torch.Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))
    match data:
        case "rectified":
            values = values.clamp(min=0)
        case "beside a mean":
            values = values * 0.1 + 20
        case "both zeros":
            values = torch.where(values.abs() < 0.5, values.sign() * 0.0, values)
    return values.to(dtype)


def describe(
    names: tuple[str, ...], tensor: torch.Tensor, layout: Layout, *given: object
) -> dict[str, object]:
    measured, found = Activation(tensor, layout, *given), {}
    for name in names:
        statistic = plugins.load("statistics", name)()
        summary = summarize_state(statistic, statistic.measure(measured), Known(found))
        found |= summary.stats
        found |= {f"{name} {part}": repr(getattr(summary, part)) for part in ("histogram", "log_histogram")}
    return found


def agree(ours: dict[str, object], expected: dict[str, object]) -> None:
    assert ours.keys() == expected.keys()
    for key, value in expected.items():
        exact = not isinstance(value, float)
        assert ours[key] == (value if exact else pytest.approx(value, rel=1e-6, abs=1e-9)), key


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_are_those_of_a_copy_in_float32(dtype: torch.dtype, shape: str) -> None:
    sizes, layout = SHAPES[shape]
    tensor = make(sizes, dtype)
    ours, expected = (describe(OF_TENSORS, one, layout) for one in (tensor, tensor.float()))
    # The bins of float32 are as narrow, but those of a type with fewer bits are known to be exact.
    exact = {
        key for key in expected if key.startswith("values ") or key[:2] in ("p0", "p5", "p9", "ab", "ta")
    }
    agree(*({k: v for k, v in one.items() if k not in exact} for one in (ours, expected)))
    for key in exact - {"values histogram", "values log_histogram"}:
        assert ours[key] == pytest.approx(expected[key], rel=4e-3), key


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("data", ["signed", "rectified", "beside a mean", "both zeros"])
@pytest.mark.parametrize("dtype", DTYPES[:2])
def test_blocks_give_what_the_whole_gives(
    dtype: torch.dtype, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensor = make((3, 5, 33, 40), dtype, data)
    ours = describe(OF_TENSORS, tensor, IMAGES)
    share = describe(OF_TENSORS, tensor, IMAGES, Shares(0.2, 0.5))
    monkeypatch.setattr(activations, "HOST_BLOCK", tensor.numel())
    agree(ours, describe(OF_TENSORS, tensor, IMAGES))
    agree(share, describe(OF_TENSORS, tensor, IMAGES, Shares(0.2, 0.5)))


@pytest.mark.usefixtures("small_blocks")
def test_values_that_are_not_finite_are_left_out() -> None:
    tensor = make((3, 5, 33, 40), torch.bfloat16)
    tensor[0, 1].view(-1)[::70] = torch.nan
    tensor[1, 2, 3, 4] = torch.inf
    found = describe(OF_TENSORS, tensor, IMAGES)
    expected = describe(OF_TENSORS, tensor.float(), IMAGES)
    assert (found["nan_count"], found["inf_count"]) == (19, 1)
    for key in ("mean", "std", "rms", "sample_variation", "low_frequency_fraction"):
        assert found[key] == pytest.approx(expected[key], rel=1e-6), key


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("other", [torch.bfloat16, torch.float32])
def test_sums_of_two_tensors_are_those_of_their_copies(other: torch.dtype) -> None:
    one, two = make((3, 5, 33, 40), torch.bfloat16), make((3, 5, 33, 40), other, "beside a mean")
    for pair in ((one, two), (two, one)):
        narrow, wide = (
            [Activation(side, IMAGES) for side in sides] for sides in (pair, [p.float() for p in pair])
        )
        for statistic, subject in ((Branches(), BranchSum), (Updates(), ResidualUpdate)):
            ours, expected = (
                summarize_state(statistic, statistic.measure(subject(*sides))).stats
                for sides in (narrow, wide)
            )
            agree(dict(ours), dict(expected))


def largest_allocation(function: Callable[[], object]) -> int:
    """Return the largest number of bytes that torch allocates at once, or NumPy in all, in a second call."""
    function()
    tracemalloc.start()
    try:
        function()
        numpys = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        function()
    return max([numpys, *(event.self_cpu_memory_usage for event in profiled.events())])


@pytest.mark.parametrize("dtype", DTYPES[:2])
def test_no_copy_is_larger_than_the_cache(dtype: torch.dtype) -> None:
    tensor = make((8, 64, 64, 64), dtype)

    def measure() -> None:
        # Without mean fields, which are kept.
        measured = Activation(tensor, IMAGES, is_only_batch=True)
        for name in OF_TENSORS:
            plugins.load("statistics", name)().measure(measured)

    # The float64 copies of a block, its keys and the tables of the sketch.
    assert largest_allocation(measure) < 4 * 2**20 < tensor.float().nbytes
