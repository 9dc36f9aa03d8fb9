"""Norms against float64 NumPy: however large values are and wherever they lie, in little memory."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from fno_telemetry.statistics import memory_blocks, reading
from fno_telemetry.statistics.gradients import ParameterGradientNorms
from fno_telemetry.statistics.norms import frobenius_norm
from fno_telemetry.statistics.subjects import ParameterGradient, ParameterGradients

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128)
LARGE = (48, 50, 9, 34)  # many blocks, the last of which are not full
FORMS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "contiguous": lambda tensor: tensor,
    "transposed": lambda tensor: tensor.permute(2, 0, 3, 1),
    "strided": lambda tensor: tensor[::2, :, 1:, ::2].transpose(0, 1),
    "flat": lambda tensor: tensor.flatten(),
    "one long axis": lambda tensor: tensor.reshape(1, 1, -1, 1),
    "rows longer than a block": lambda tensor: tensor.reshape(5, -1),
    "repeated": lambda tensor: tensor[:3, None, :, :, ::5].expand(3, 20, 50, 9, 7),
    "overlapping windows": lambda tensor: tensor.flatten().unfold(0, 100, 1)[:9000],
    "small": lambda tensor: tensor[0, 0],
    "one element": lambda tensor: tensor[3, 2, 1, 0],
}
SIZES = {
    torch.float16: (6e-8, 1e-4, 1e4),
    torch.bfloat16: (1e-38, 1e-20, 1e20, 1e37),
    torch.float32: (1e-44, 1e-30, 1e30, 1e37),
    torch.float64: (1e-300, 1e-200, 1e200, 1e303),
    torch.complex64: (1e-44, 1e-30, 1e30, 1e37),
    torch.complex128: (1e-300, 1e-200, 1e200, 1e303),
}


@pytest.fixture(autouse=True)
def kernels_in_use() -> None:
    """Norms use no kernels, so each test runs once."""


def noise(dtype: torch.dtype, size: float = 1.0) -> torch.Tensor:
    wide = torch.complex128 if dtype.is_complex else torch.float64
    values = torch.randn(LARGE, generator=torch.Generator().manual_seed(0), dtype=wide)
    return (values * size).to(dtype)


def reference(tensor: torch.Tensor) -> float:
    wide = tensor.resolve_conj().to(torch.complex128 if tensor.is_complex() else torch.float64)
    array = (torch.view_as_real(wide) if wide.is_complex() else wide).numpy()
    largest = abs(array).max()
    return float(np.linalg.norm((array / largest).ravel()) * largest)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_norm_is_right_wherever_the_values_lie(dtype: torch.dtype, form: str) -> None:
    tensor = FORMS[form](noise(dtype))
    norm = frobenius_norm(tensor)
    assert (norm.dtype, norm.shape) == (torch.float64, ())
    assert float(norm) == pytest.approx(reference(tensor), rel=1e-11)


@pytest.mark.parametrize(("dtype", "size"), [(dtype, size) for dtype in DTYPES for size in SIZES[dtype]])
def test_the_norm_is_right_however_large_or_small_the_values_are(dtype: torch.dtype, size: float) -> None:
    tensor = noise(dtype, size)
    expected = reference(tensor)
    assert 0 < expected < math.inf
    assert float(frobenius_norm(tensor)) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_a_tensor_that_stands_for_its_conjugate_has_the_same_norm(dtype: torch.dtype) -> None:
    tensor = noise(dtype)
    assert float(frobenius_norm(tensor.conj())) == float(frobenius_norm(tensor))
    assert float(frobenius_norm(tensor.conj().imag)) == pytest.approx(reference(tensor.imag), rel=1e-11)


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_elements_and_zeros_have_a_norm_of_zero(dtype: torch.dtype) -> None:
    for tensor in (torch.empty(0, dtype=dtype), torch.empty(3, 0, 2, dtype=dtype), noise(dtype) * 0):
        assert float(frobenius_norm(tensor)) == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_value_that_is_not_finite_shows_from_every_block(dtype: torch.dtype) -> None:
    for wrong, place in ((math.nan, 0), (math.nan, -1), (math.inf, 0), (-math.inf, -1)):
        tensor = noise(dtype)
        tensor.view(-1)[place] = wrong
        norm = float(frobenius_norm(tensor))
        assert math.isnan(norm) if math.isnan(wrong) else norm == math.inf
    tensor.view(-1)[0] = math.nan
    assert math.isnan(float(frobenius_norm(tensor)))


def test_a_norm_beyond_float64_is_infinite() -> None:
    assert float(frobenius_norm(torch.full((200_000,), 1e307, dtype=torch.float64))) == math.inf


def largest_allocation(function: Callable[[], object]) -> int:
    """Return the bytes of the largest block of memory that torch allocates in a call."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        function()
    return max(event.self_cpu_memory_usage for event in profiled.events())


def measure_gradient(gradient: torch.Tensor) -> Any:
    """Return the state of a parameter with this gradient, which is also its value."""
    subject = ParameterGradients((ParameterGradient(gradient, gradient),))
    return ParameterGradientNorms().measure(subject)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_value_of_a_gradient_counts_once(dtype: torch.dtype, form: str) -> None:
    values = noise(dtype)
    gradient = FORMS[form](values)
    wide = gradient.to(torch.complex128 if dtype.is_complex else torch.float64)
    state = measure_gradient(gradient)
    assert float(state.norm) == float(state.weight_norm) == pytest.approx(reference(gradient), rel=1e-11)
    # Absolute values of complex numbers are rounded to the precision of the gradient.
    assert float(state.absolute_sum) == pytest.approx(float(np.abs(wide.numpy()).sum()), rel=1e-6)
    assert (state.elements, int(state.nonfinite)) == (gradient.numel(), 0)
    values.view(-1)[::3] = math.nan
    wrong = int(np.isnan(FORMS[form](values).to(wide.dtype).numpy()).sum())
    assert int(measure_gradient(FORMS[form](values)).nonfinite) == wrong


@pytest.mark.parametrize("form", [form for form in FORMS if form not in ("small", "one element")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.complex64])
def test_no_copy_is_larger_than_a_block(dtype: torch.dtype, form: str) -> None:
    tensor = FORMS[form](noise(dtype))
    tensor = tensor.conj() if dtype.is_complex else tensor
    wide = torch.complex128 if dtype.is_complex else torch.float64
    block = 8 * memory_blocks.HOST_BLOCK
    assert largest_allocation(lambda: tensor.to(wide, copy=True)) > 2 * block
    assert largest_allocation(lambda: frobenius_norm(tensor)) <= block
    assert largest_allocation(lambda: measure_gradient(tensor)) <= block


@pytest.mark.parametrize("form", ["contiguous", "transposed", "strided", "flat", "one long axis"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
def test_blocks_of_any_size_give_the_same_norm(
    dtype: torch.dtype, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensor = FORMS[form](noise(dtype)[:2, :3])
    expected = reference(tensor)
    monkeypatch.setattr(reading, "is_free", lambda tensor: False)
    for elements in (1, 5, 301, 1 << 20):
        monkeypatch.setattr(memory_blocks, "DEVICE_BLOCK", elements)
        assert float(frobenius_norm(tensor)) == pytest.approx(expected, rel=1e-11)


class Spread(torch.Tensor):
    """Notes what is called with it, as one spread over processes could count its messages."""

    called: list[str]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.called.append(getattr(func, "__name__", ""))
        return super().__torch_function__(func, types, args, kwargs or {})


def test_a_tensor_of_another_class_is_not_cut() -> None:
    Spread.called = []
    tensor = noise(torch.float32)
    assert float(frobenius_norm(tensor.as_subclass(Spread))) == pytest.approx(reference(tensor), rel=1e-11)
    assert "linalg_vector_norm" in Spread.called
    assert not {"split", "narrow", "unbind", "__getitem__"} & {*Spread.called}
