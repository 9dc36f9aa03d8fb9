"""What the tests of the statistics share: the slow reference, and ways from a tensor to its numbers."""

import importlib.util
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from fno_telemetry.statistics import kernels
from fno_telemetry.statistics.activation import Activation, Layout
from fno_telemetry.statistics.contract import Known, Summary, summarize_state

Array = npt.NDArray[Any]


@pytest.fixture(
    params=[
        "torch",
        pytest.param(
            "numba", marks=pytest.mark.skipif(find_spec("numba") is None, reason="numba is not installed")
        ),
    ],
    autouse=True,
)
def kernels_in_use(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test of a statistic runs with each of the two sets of kernels."""
    with kernels.using(request.param):
        yield request.param


@pytest.fixture(scope="session")
def reference() -> ModuleType:
    """The slow, obvious float64 NumPy reference of every statistic; it shares no code with the library."""
    spec = importlib.util.spec_from_file_location(
        "statistics_reference", Path(__file__).with_name("reference.py")
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def as_array() -> Callable[[torch.Tensor], Array]:
    """A tensor of any precision as float64 or complex128 NumPy, exactly."""

    def convert(tensor: torch.Tensor) -> Array:
        wide = tensor.detach().to(torch.complex128 if tensor.is_complex() else torch.float64)
        return np.array(wide.resolve_conj().resolve_neg().numpy())

    return convert


@pytest.fixture(scope="session")
def summarized() -> Callable[..., Summary]:
    """Measure a tensor with one statistic and summarize it; `known` is what earlier statistics said."""

    def summarize(statistic: Any, tensor: torch.Tensor, layout: Layout, **known: Any) -> Summary:
        return summarize_state(statistic, statistic.measure(Activation(tensor, layout)), Known(known))

    return summarize
