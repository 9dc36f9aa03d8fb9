"""The parameters of a captured model: what each holds, and the norm of those that no measured module has."""

import hashlib
import math
from collections.abc import Collection

import numpy as np
import torch
from torch import nn

from fno_telemetry.records import FrozenMapping, ParameterRecord, ValueSample
from fno_telemetry.statistics.activation import dtype_name, unmeasurable
from fno_telemetry.statistics.gradients import trained_parameters
from fno_telemetry.statistics.host_transfer import on_host
from fno_telemetry.statistics.norms import frobenius_norm
from fno_telemetry.statistics.shares import spread_places
from fno_telemetry.tracing.module_calls import modules_by_path
from fno_telemetry.tracing.parameter_names import name_parameters

MOST_DIGESTED = 4096
"""Values of a parameter, at most, that its digest is of: a training step changes nearly all."""


def list_parameters(model: nn.Module, measured: Collection[str]) -> tuple[ParameterRecord, ...]:
    """Return the record of every parameter; `measured` are the paths of the modules that have records.

    Parameters whose values cannot be read in this process, such as those spread over several, have no digest.
    """
    by_path = modules_by_path(model)
    covered = {id(p) for path in measured if path in by_path for p in trained_parameters(by_path[path])}
    named = [*name_parameters(model)]
    with torch.no_grad(), torch._C.DisableTorchFunction():
        samples = [_sample(parameter) for _, parameter in named]
        norms = [
            None if id(parameter) in covered or sample is None else _norm(parameter)
            for (_, parameter), sample in zip(named, samples, strict=True)
        ]
    samples, norms = on_host((samples, norms))
    return tuple(
        _describe(name, parameter, sample, norm)
        for (name, parameter), sample, norm in zip(named, samples, norms, strict=True)
    )


def _sample(parameter: torch.Tensor) -> torch.Tensor | None:
    """Return the bytes that are digested, a row for each value, on the parameter's device.

    None where they cannot be read.
    """
    if (
        type(parameter) not in (torch.Tensor, nn.Parameter)
        or parameter.is_meta
        or parameter.layout is not torch.strided
    ):
        return None
    values = parameter.detach().resolve_conj().resolve_neg().contiguous()
    # As bytes: many types of small numbers can be stored, but not indexed.
    rows = values.reshape(-1).view(torch.uint8).reshape(values.numel(), values.itemsize)
    if len(rows) <= MOST_DIGESTED:
        return rows
    return rows[spread_places(MOST_DIGESTED, len(rows), rows.device)]


def _norm(parameter: torch.Tensor) -> torch.Tensor | None:
    """Return the norm; None for integers and other types that are not measured."""
    if unmeasurable(parameter) is not None:
        return None
    small = parameter.is_floating_point() and parameter.itemsize < 4
    return frobenius_norm(parameter.float() if small else parameter)


def _describe(
    name: str, parameter: torch.Tensor, sample: torch.Tensor | None, norm: torch.Tensor | None
) -> ParameterRecord:
    stats: dict[str, float | None] = {}
    reasons = {}
    if norm is not None:
        size = float(norm)
        stats["weight_norm"] = size if math.isfinite(size) else None
        if not math.isfinite(size):
            reasons["weight_norm"] = "the parameter is not finite"
    return ParameterRecord(
        name=name,
        shape=tuple(parameter.shape),
        dtype=dtype_name(parameter.dtype),
        stats=FrozenMapping(stats),
        reasons=FrozenMapping(reasons),
        digest=None if sample is None else _digest(parameter, sample),
        sample=None if sample is None else _summarise(parameter, sample),
    )


def _digest(parameter: torch.Tensor, sample: torch.Tensor) -> str:
    found = hashlib.sha256(f"{dtype_name(parameter.dtype)} {tuple(parameter.shape)}".encode())
    # Of a copy: a tensor that lent its memory to NumPy can never be resized again, which sharded models do.
    found.update(sample.clone().numpy().tobytes())
    return found.hexdigest()


def _summarise(parameter: torch.Tensor, sample: torch.Tensor) -> ValueSample | None:
    """Return the extremes of the digested values; None for integers, none at all, and what is not finite."""
    if not sample.numel() or unmeasurable(parameter) is not None:
        return None
    stored = sample.clone().view(parameter.dtype)
    values = (torch.view_as_real(stored) if stored.is_complex() else stored).reshape(-1).double().numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        square = float(np.dot(values, values)) / values.size
    if not math.isfinite(square):
        return None
    return ValueSample(values.size, float(values.min()), float(values.max()), math.sqrt(square))
