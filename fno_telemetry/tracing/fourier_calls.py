"""Calls of `torch.fft`: their axes, their normalisation and the coefficients that they keep."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fno_telemetry.isolation.function_transforms import is_batched

FORWARD = frozenset({"fft", "rfft", "fft2", "rfft2", "fftn", "rfftn"})
INVERSE = frozenset({"ifft", "irfft", "ifft2", "irfft2", "ifftn", "irfftn"})


@dataclass(frozen=True)
class FourierCall:
    """One call: `axes` are counted from the front, in the order given; `halved` is true of real transforms.

    `shape` is the shape of the tensor on the spatial side. For an inverse transform, `modes` marks the
    coefficients along the sorted axes that are nonzero in any sample or channel: those that a layer keeps.
    """

    axes: tuple[int, ...]
    shape: tuple[int, ...]
    norm: str
    halved: bool
    inverse: bool
    modes: torch.Tensor | None = None


def count_frequencies(calls: Iterable[FourierCall]) -> tuple[int, ...]:
    """Return how many frequencies a field has along each transformed axis, given its transforms."""
    by_axis: dict[int, int] = {}
    for call in calls:
        for axis in call.axes:
            size = call.shape[axis]
            by_axis.setdefault(axis, size // 2 + 1 if call.halved and axis == call.axes[-1] else size)
    return tuple(by_axis[axis] for axis in sorted(by_axis))


def read_call(name: str, args: Sequence[Any], kwargs: dict[str, Any], output: torch.Tensor) -> FourierCall:
    """Return the description of a call of `torch.fft.<name>` with these arguments."""
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
    """Return the sizes of transformed axes by number of dimensions; a layer may transform axis by axis."""
    by_rank: dict[int, dict[int, int]] = {}
    for transform in transforms:
        sizes = {axis: transform.shape[axis] for axis in transform.axes}
        by_rank.setdefault(len(transform.shape), {}).update(sizes)
    return by_rank


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
