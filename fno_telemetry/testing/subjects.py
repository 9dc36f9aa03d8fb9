"""Subjects made by hand, one for everything that a statistic can be of, whole and split."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fno_telemetry.records import BandAccuracy
from fno_telemetry.statistics.activation import Activation, Layout
from fno_telemetry.statistics.contract import Of
from fno_telemetry.statistics.frequency_bands import band_edges
from fno_telemetry.statistics.subjects import (
    BlockCall,
    BranchGradients,
    BranchSum,
    Comparison,
    ModeSizes,
    OutputGradient,
    ParameterGradient,
    ParameterGradients,
    ResidualUpdate,
    SpectralInput,
    Weights,
)

LAYOUT = Layout(sample=0, channel=1, space=(2, 3))
SHAPE = (6, 3, 8, 10)  # samples, channels, space


@dataclass(frozen=True)
class Data:
    """A tensor of `SHAPE` from which subjects are made, and a name that says what is special about it."""

    name: str
    tensor: torch.Tensor

    def split(self, sizes: Sequence[int]) -> list["Data"]:
        """Return the data in parts of so many samples."""
        return [Data(self.name, part) for part in torch.split(self.tensor, list(sizes))]


def example_data() -> list[Data]:
    """Return data of every precision, with holes, without any finite element, constant, and zero."""
    plain = _noise(torch.float64)
    holes = _noise(torch.float32).clone()
    holes[0, 0, 1, 2], holes[2, 1, 0, 0], holes[3, 2, 4, 4] = math.nan, math.inf, -math.inf
    precisions = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    found = [Data(str(dtype).removeprefix("torch."), plain.to(dtype)) for dtype in precisions]
    return [
        *found,
        Data("complex64", _noise(torch.complex64)),
        Data("holes", holes),
        Data("no finite element", torch.full(SHAPE, math.nan)),
        Data("constant", torch.full(SHAPE, 0.75)),
        Data("zero", torch.zeros(SHAPE)),
    ]


def make_subject(of: Of, data: Data) -> Any:
    """Return what a statistic of this kind measures, made of the data."""
    return _MAKERS[of](data.tensor)


def make_bands() -> BandAccuracy:
    """Return how an output compares with a target of `SHAPE` of which it misses every other band."""
    edges = band_edges(2)
    bands = [(1.0, 0.0 if index % 2 else 1.0) for index in range(len(edges))]
    target, output = zip(*bands, strict=True)
    return BandAccuracy(
        sizes=SHAPE[2:],
        band_edges=edges,
        target=target,
        output=output,
        error=tuple(1 - z for z in output),
        band_error=tuple(1 - z for z in output),
        spectrum_ratio=output,
        band_coherence=tuple(1.0 if z else None for z in output),
    )


MERGED_OVER_BATCHES: frozenset[Of] = frozenset(
    {
        *("tensor", "operator_output", "module_input", "spectral_input", "output_gradient"),
        *("branch_sum", "residual_update", "block", "block_spectra", "comparison"),
    }
)
"""What is measured batch by batch; the other kinds are measured once."""


OF_ACTIVATIONS: frozenset[Of] = frozenset({"tensor", "operator_output", "module_input"})
"""What is measured of an `Activation` alone."""


def _noise(dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(11)
    parts = [torch.randn(SHAPE, generator=generator, dtype=torch.float64) for _ in range(2)]
    # Unequal means and scales: a merge that ignores them is found out.
    offsets = torch.arange(SHAPE[0], dtype=torch.float64).reshape(-1, 1, 1, 1)
    data = parts[0] * (1 + offsets) + offsets
    return (torch.complex(data, parts[1]) if dtype.is_complex else data).to(dtype)


def _activation(tensor: torch.Tensor) -> Activation:
    return Activation(tensor, LAYOUT)


def _partner(tensor: torch.Tensor) -> Activation:
    # It depends on the values alone, so that it splits as the tensor does.
    return Activation(tensor * tensor - 0.5, LAYOUT)


def _spectral_input(tensor: torch.Tensor) -> SpectralInput:
    height, width = tensor.shape[2:]
    modes = torch.zeros(height, width if tensor.is_complex() else width // 2 + 1, dtype=torch.bool)
    modes[:2, :2] = True
    return SpectralInput(_activation(tensor), modes)


def _weights(tensor: torch.Tensor) -> Weights:
    module = nn.Module()
    real = torch.view_as_real(tensor) if tensor.is_complex() else torch.stack((tensor, tensor), -1)
    values = torch.view_as_complex(real.float().nan_to_num(0.5, 0.5, 0.5).contiguous())
    module.register_parameter("weights", nn.Parameter(values))
    channels = (tensor.shape[0], tensor.shape[1])
    return Weights(module, is_spectral=True, modes=ModeSizes(channels, tuple(tensor.shape[2:])))


def _parameter_gradients(tensor: torch.Tensor) -> ParameterGradients:
    return ParameterGradients(
        tuple(ParameterGradient(torch.ones_like(part), part) for part in (tensor, tensor * 2))
    )


def _output_gradient(tensor: torch.Tensor) -> OutputGradient:
    # In float64, so that the mean over a batch is not rounded differently in another batch.
    wide = tensor.to(torch.promote_types(tensor.dtype, torch.float64))
    return OutputGradient(wide / max(len(tensor), 1), tuple(tensor.shape), len(tensor), tensor.device)


_MAKERS: Mapping[Of, Callable[[torch.Tensor], Any]] = {
    "tensor": _activation,
    "operator_output": _activation,
    "module_input": _activation,
    "spectral_input": _spectral_input,
    "weights": _weights,
    "parameter_gradients": _parameter_gradients,
    "output_gradient": _output_gradient,
    "branch_sum": lambda tensor: BranchSum(_activation(tensor), _partner(tensor)),
    "residual_update": lambda tensor: ResidualUpdate(_activation(tensor), _partner(tensor)),
    "block": lambda tensor: BlockCall(_activation(tensor), _partner(tensor)),
    "block_spectra": lambda tensor: BlockCall(_activation(tensor), _partner(tensor)),
    "comparison": lambda tensor: Comparison(_activation(tensor), _partner(tensor)),
    "branch_gradients": lambda tensor: BranchGradients(
        _parameter_gradients(tensor), _parameter_gradients(tensor.flip(0))
    ),
}
