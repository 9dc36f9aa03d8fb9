"""The parameters of a captured model: a digest of each, and the norm of those that no measured module has."""

import hashlib
import math
from collections.abc import Collection

import torch
from torch import nn

from fno_telemetry.records import FrozenMapping, ParameterRecord
from fno_telemetry.statistics.activation import dtype_name
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
            None if id(p) in covered or s is None else frobenius_norm(p)
            for (_, p), s in zip(named, samples, strict=True)
        ]
    samples, norms = on_host((samples, norms))
    return tuple(
        _describe(name, parameter, sample, norm)
        for (name, parameter), sample, norm in zip(named, samples, norms, strict=True)
    )


def _sample(parameter: torch.Tensor) -> torch.Tensor | None:
    """Return the values that are digested, on the parameter's device; None where they cannot be read."""
    if (
        type(parameter) not in (torch.Tensor, nn.Parameter)
        or parameter.is_meta
        or (parameter.layout is not torch.strided)
    ):
        return None
    flat = parameter.detach().reshape(-1)
    if flat.numel() <= MOST_DIGESTED:
        return flat
    return flat[spread_places(MOST_DIGESTED, flat.numel(), flat.device)]


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
    )


def _digest(parameter: torch.Tensor, sample: torch.Tensor) -> str:
    found = hashlib.sha256(f"{dtype_name(parameter.dtype)} {tuple(parameter.shape)}".encode())
    values = sample.resolve_conj().resolve_neg().contiguous()
    # Of a copy: a tensor that lent its memory to NumPy can never be resized again, which sharded models do.
    found.update(values.clone().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
