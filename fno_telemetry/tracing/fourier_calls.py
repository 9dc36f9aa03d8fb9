"""Calls of `torch.fft`: their axes, their normalisation and the coefficients that they keep."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

import torch

from fno_telemetry.isolation.function_transforms import is_batched, unwrap

FORWARD = frozenset({"fft", "rfft", "fft2", "rfft2", "fftn", "rfftn"})
INVERSE = frozenset({"ifft", "irfft", "ifft2", "irfft2", "ifftn", "irfftn"})


@dataclass(frozen=True)
class FourierCall:
    """One call: `axes` are counted from the front, in the order given; `halved` is true of real transforms.

    `shape` is the shape of the tensor on the spatial side; `lengths` by axis are the numbers of points of the
    transform, with the zeros that it appends. `nonzero` marks by sample the coefficients along the sorted
    axes that are not zero in every channel; of an inverse transform, `complete` marks those that are zero in
    no channel, except channels that are zero everywhere. Both are None if they cannot be told. `mixed` is
    true of a transform of fields with an imaginary part.
    """

    axes: tuple[int, ...]
    shape: tuple[int, ...]
    lengths: Mapping[int, int]
    norm: str
    halved: bool
    inverse: bool
    nonzero: torch.Tensor | None = None
    complete: torch.Tensor | None = None
    mixed: bool = False


@dataclass(frozen=True, eq=False)
class KeptModes:
    """The coefficients that a layer keeps, of its inverse transform over these many points (`sizes`).

    `mask` marks those that it keeps in any field, `removed` those that a field has before and not after, both
    over the sorted axes; a coefficient in both depends on the data. `halved` is true of a real transform,
    `transformed` are the sizes of the forward transform, `mixed` says whether it was given an imaginary part.
    """

    mask: torch.Tensor
    removed: torch.Tensor
    halved: bool
    transformed: tuple[int, ...]
    padded: bool  # whether the forward transform appends zeros
    mixed: bool = False

    @property
    def fixed(self) -> bool:
        """Whether it keeps the same coefficients of every field."""
        return not (self.mask & self.removed).any()


def find_modes(forward: Sequence[FourierCall], inverse: Sequence[FourierCall]) -> KeptModes | None:
    """Return what a layer with these transforms keeps: all that any of its inverse transforms is given.

    None if there is no inverse transform, or if they are over different axes or numbers of points.
    """
    shapes = {(call.halved, *sorted(call.lengths.items())) for call in inverse}
    masks = [call.nonzero for call in inverse]
    if len(shapes) != 1 or any(mask is None for mask in masks):
        return None
    back = inverse[0]
    alike = [call for call in forward if sorted(call.axes) == sorted(back.axes)]
    to = alike[-1] if alike else None
    kept = [mask.any(0) for mask in masks if mask is not None]
    mask = reduce(or_, kept)
    removed = torch.zeros_like(mask)
    for own, start, end in zip(
        kept, alike if len(alike) == len(inverse) else alike[-1:], inverse, strict=False
    ):
        # What one transform removes another one may keep; only within one it tells of a choice.
        removed |= _removed(start, end) & (own if len(inverse) > 1 else True)
    sizes = () if to is None else tuple(to.lengths[axis] for axis in sorted(to.axes))
    padded = to is not None and any(to.shape[axis] != length for axis, length in to.lengths.items())
    return KeptModes(mask, removed, back.halved, sizes, padded, any(call.mixed for call in alike))


def _removed(to: FourierCall, back: FourierCall) -> torch.Tensor | bool:
    """Return a mask of what a field has before and not after; False if the two cannot be compared."""
    had, complete = to.nonzero, back.complete
    if had is None or complete is None or had.shape != complete.shape:
        return False
    return (had & ~complete).any(0)


def count_frequencies(calls: Iterable[FourierCall]) -> tuple[int, ...]:
    """Return how many frequencies a field has along each transformed axis, given its transforms."""
    by_axis: dict[int, int] = {}
    for call in calls:
        for axis in call.axes:
            size = call.lengths[axis]
            by_axis.setdefault(axis, size // 2 + 1 if call.halved and axis == call.axes[-1] else size)
    return tuple(by_axis[axis] for axis in sorted(by_axis))


def read_call(name: str, args: Sequence[Any], kwargs: dict[str, Any], output: torch.Tensor) -> FourierCall:
    """Return the description of a call of `torch.fft.<name>` with these arguments."""
    size_name = "s" if name.endswith(("2", "n")) else "n"
    options = dict(zip(("input", size_name, "dim", "norm"), args, strict=False)) | kwargs
    given: torch.Tensor = options["input"]
    axes = _axes(name, given.ndim, options.get("dim"), options.get("s"))
    inverse, halved = name in INVERSE, "r" in name
    spatial, spectrum = (output, given) if inverse else (given, output)
    lengths = {axis: spatial.shape[axis] for axis in axes}
    if not inverse and (sizes := options.get(size_name)) is not None:
        pairs = zip(axes, (sizes,) if isinstance(sizes, int) else sizes, strict=True)
        lengths |= {axis: size for axis, size in pairs if size != -1}
    nonzero = complete = None
    if not is_batched(spectrum) and not (halved and axes[-1] != max(axes)):
        # Masks outlive the forward, and so a wrapper of a function transform.
        kept = _kept_by_field(unwrap(spectrum), lengths, halved)
        nonzero, complete = _any(kept, 1), _complete(kept) if inverse else None
    return FourierCall(
        axes=axes,
        shape=tuple(spatial.shape),
        lengths=lengths,
        norm=options.get("norm") or "backward",
        halved=halved,
        inverse=inverse,
        nonzero=nonzero,
        complete=complete,
        mixed=not inverse and given.is_complex() and not is_batched(given) and bool(given.imag.any()),
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


def _kept_by_field(spectrum: torch.Tensor, lengths: Mapping[int, int], halved: bool) -> torch.Tensor:
    """Return a mask of the nonzero coefficients as samples x channels x coefficients along the sorted axes.

    An inverse transform crops or pads what it is given to its own length.
    """
    kept, ordered, amounts = spectrum != 0, sorted(lengths), list[int]()
    for axis in ordered:
        length = lengths[axis] // 2 + 1 if halved and axis == ordered[-1] else lengths[axis]
        kept = kept.narrow(axis, 0, min(length, kept.shape[axis]))
        amounts[:0] = (0, length - kept.shape[axis])
    if 0 in lengths:
        kept, ordered = kept.unsqueeze(0), [axis + 1 for axis in ordered]
    channels = [axis for axis in range(1, kept.ndim) if axis not in ordered]
    fields = kept.permute(0, *channels, *ordered)
    fields = fields.reshape(kept.shape[0], -1, *(kept.shape[axis] for axis in ordered))
    return torch.nn.functional.pad(fields, amounts) if any(amounts) else fields


def _complete(kept: torch.Tensor) -> torch.Tensor:
    """Return by sample the coefficients that are zero in no channel but those that are zero everywhere."""
    blank = ~_any(kept.flatten(2), 2)
    return ~_any(~(kept | blank.reshape(*blank.shape, *[1] * (kept.ndim - 2))), 1)


def _any(mask: torch.Tensor, axis: int) -> torch.Tensor:
    """Return `mask.any(axis)` in a twentieth of its time."""
    if mask.shape[axis] == 0:
        return mask.any(axis)
    return mask.view(torch.uint8).amax(axis).view(torch.bool)
