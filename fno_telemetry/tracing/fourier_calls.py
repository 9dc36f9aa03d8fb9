"""What a call of torch.fft says: its axes, its normalisation and the coefficients that it kept."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fno_telemetry.isolation.function_transforms import is_batched

FORWARD = frozenset({"fft", "rfft", "fft2", "rfft2", "fftn", "rfftn"})
INVERSE = frozenset({"ifft", "irfft", "ifft2", "irfft2", "ifftn", "irfftn"})


@dataclass(frozen=True)
class FourierCall:
    """One call: `axes` count from the front, in the order given; `halved` for the real transforms.

    `shape` is that of the tensor on the spatial side. `modes` marks for an inverse transform the coefficients
    along the sorted axes that were not exactly zero in every sample and channel: what a layer let through.
    """

    axes: tuple[int, ...]
    shape: tuple[int, ...]
    norm: str
    halved: bool
    inverse: bool
    modes: torch.Tensor | None = None


def available_frequencies(calls: Iterable[FourierCall]) -> tuple[int, ...]:
    """Return how many frequencies a field has along each transformed axis, from the transforms of it."""
    found: dict[int, int] = {}
    for call in calls:
        for axis in call.axes:
            size = call.shape[axis]
            found.setdefault(axis, size // 2 + 1 if call.halved and axis == call.axes[-1] else size)
    return tuple(found[axis] for axis in sorted(found))


def fourier_call(name: str, args: Sequence[Any], kwargs: dict[str, Any], output: torch.Tensor) -> FourierCall:
    """Return what the call of `torch.fft.<name>` with these arguments did."""
    size_name = "s" if name.endswith(("2", "n")) else "n"
    options = dict(zip(("input", size_name, "dim", "norm"), args, strict=False)) | kwargs
    given: torch.Tensor = options["input"]
    axes = _axes(name, given.ndim, options.get("dim"), options.get("s"))
    inverse = name in INVERSE
    halved = "r" in name
    return FourierCall(
        axes=axes,
        shape=tuple((output if inverse else given).shape),
        norm=options.get("norm") or "backward",
        halved=halved,
        inverse=inverse,
        modes=_modes(given, axes, halved) if inverse else None,
    )


def sizes_by_rank(transforms: Iterable[FourierCall]) -> dict[int, dict[int, int]]:
    """Return by number of dimensions the size of each axis; a layer may take one axis after the other."""
    found: dict[int, dict[int, int]] = {}
    for transform in transforms:
        sizes = {axis: transform.shape[axis] for axis in transform.axes}
        found.setdefault(len(transform.shape), {}).update(sizes)
    return found


def _axes(name: str, ndim: int, dim: Any, size: Sequence[int] | None) -> tuple[int, ...]:
    if dim is None:
        if name.endswith("2"):
            dim = (-2, -1)
        elif not name.endswith("n"):
            dim = -1
        else:
            dim = tuple(range(ndim)) if size is None else tuple(range(ndim - len(size), ndim))
    return tuple(axis % ndim for axis in ((dim,) if isinstance(dim, int) else dim))


def _modes(spectrum: torch.Tensor, axes: tuple[int, ...], halved: bool) -> torch.Tensor | None:
    ordered = sorted(axes)
    if (halved and axes[-1] != ordered[-1]) or is_batched(spectrum):
        return None
    others = [axis for axis in range(spectrum.ndim) if axis not in axes]
    kept = spectrum != 0
    for axis in reversed(others):
        kept = kept.any(axis)
    return kept
