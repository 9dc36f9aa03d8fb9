"""Which axis of one tensor is which axis of another, as functions of torch make tensors of one another.

Permutations, additions and convolutions say which axes are the same; a Fourier transform then says of one of
them that it is space, and thereby of all.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import torch

from fno_telemetry.tracing.axis_groups import Axis, AxisGroups, Part
from fno_telemetry.tracing.fourier_calls import FORWARD, INVERSE, FourierCall
from fno_telemetry.tracing.lineage import TensorTable
from fno_telemetry.tracing.module_calls import Call
from fno_telemetry.tracing.torch_functions import name_of, pad_amounts


class Space(NamedTuple):
    """The identities that are space, and the parts of each axis that counts as one whatever is made of it."""

    identities: frozenset[int]
    wholes: frozenset[tuple[int, ...]]


class Margin(NamedTuple):
    """What is around the valid part of an axis: pair `pair` of the amounts in the call `call` of `pad`."""

    call: int
    pair: int


@dataclass
class _Padded:
    margin: Margin
    part: Part  # with its size after padding
    before: int
    after: int
    start: int  # on the clock that counts places
    end: int = 0  # when exactly that was cut off again, for the last time


_VIEWS = {
    *("permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "t", "T", "mT", "H", "mH"),
    *("adjoint", "squeeze", "unsqueeze", "expand", "expand_as", "broadcast_to", "narrow", "select"),
    "__getitem__",
}
_RESHAPES = {"view", "reshape", "flatten", "unflatten", "view_as", "reshape_as"}
_SAME_ORDER = {
    *("pad", "interpolate", "chunk", "split", "tensor_split", "index_select", "cat", "concat", "concatenate"),
    *("glu", "diff", "grid_sample", "scaled_dot_product_attention"),
}
_MIXING = {
    *("matmul", "mm", "bmm", "einsum", "tensordot", "baddbmm", "addmm", "addbmm", "inner", "outer", "lstm"),
    *("multi_head_attention_forward", "bilinear", "unfold", "fold", "gru", "gather", "cdist", "rot90"),
    "chain_matmul",
}
_PRIMES = (1009, 1013, 1019, 1021, 1031, 1033, 1039, 1049, 1051, 1061, 1063, 1069)
"""Strides that no step of a slice turns into one another."""


class AxisTracker:
    """Follows axes through one forward; a function that is not known to keep them makes new ones."""

    def __init__(self) -> None:
        self._axes: TensorTable[tuple[Axis, ...]] = TensorTable()
        self._known = AxisGroups()
        self.clock = 0  # how many tensors were asked for that are to be judged later
        self._pads = 0
        self._padded: list[_Padded] = []
        self._spectral: dict[int, int] = {}  # the identity of frequencies by that of their axis in space
        self._spatial: dict[int, int] = {}  # and the other way round
        self._convolved: list[tuple[Axis, ...]] = []  # what one convolution ran over
        self._transformed: list[tuple[Call, tuple[Axis, ...]]] = []  # one Fourier transform, and where

    def of(self, tensor: torch.Tensor) -> tuple[Axis, ...]:
        """Return the axes of a tensor; new ones where nothing is known of it."""
        if tensor.is_nested:
            return ()
        known = self._axes.get(tensor)
        if known is None or len(known) != tensor.ndim:
            known = tuple(self._known.new(size) for size in tensor.shape)
            self._axes.set(tensor, known)
        return known

    def returned(
        self,
        func: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        entered: Sequence[torch.Tensor],
        made: Sequence[torch.Tensor],
    ) -> None:
        """Take note of what a function did; `entered` are the followed tensors among its arguments."""
        entered, made = _with_axes(entered), _with_axes(made)
        if not entered:
            return
        name = name_of(func)
        if name == "pad":
            self._pad(self.of(entered[0]), pad_amounts(args, kwargs))
        if name == "__setitem__":
            self._write(args[0], entered[-1])
            return
        for tensor in made:
            axes = self._made(func, name, args, kwargs, entered, tensor)
            if axes is not None and all(tensor is not one for one in entered):
                self._axes.set(tensor, axes)

    def transformed(self, call: FourierCall, parent: Call, given: torch.Tensor, made: torch.Tensor) -> None:
        """Take note of a Fourier transform: axes of frequencies belong to those of space, and are others."""
        axes = list(self.of(given))
        to, back = (self._spatial, self._spectral) if call.inverse else (self._spectral, self._spatial)
        for axis in call.axes:
            before = self._known.parts(axes[axis])
            (after,) = self._known.new(made.shape[axis])
            if len(before) == 1:
                identity = to.setdefault(before[0].identity, after.identity)
                back.setdefault(self._known.root(identity), before[0].identity)
                after = after._replace(identity=identity)
            axes[axis] = (after,)
        self._axes.set(made, tuple(axes))
        known = self.of(made if call.inverse else given)
        self._transformed.append((parent, tuple(known[axis] for axis in call.axes)))

    def space(self, counts: Callable[[Call], bool]) -> Space:
        """Return what is space: what the transforms that count ran over, without any all convolutions.

        All axes of one convolution are space when one of them is.
        """
        found = self._identities(axes for call, axes in self._transformed if counts(call))
        groups = [self._identities([axes]) for axes in self._convolved]
        if not found:
            found = found.union(*groups)
        before = 0
        while len(found) > before:
            before = len(found)
            found = found.union(*(group for group in groups if group & found))
        # One axis alone may be several flattened ones, which a pointwise convolution does not tell.
        together = [axes for axes in self._convolved if len(axes) > 1]
        together += [axes for _, axes in self._transformed]
        wholes = {tuple(p.identity for p in self._known.parts(axis)) for axes in together for axis in axes}
        return Space(frozenset(found), frozenset(wholes))

    def sizes_in_space(self, axis: Axis, space: Space) -> tuple[int, ...]:
        """Return the sizes of an axis that is space as a whole, several of a flattened one; () for others."""
        parts = self._known.parts(axis)
        if not all(part.identity in space.identities for part in parts):
            return ()
        sizes, rest = [], list(parts)
        while rest:
            identities = tuple(part.identity for part in rest)
            lengths = range(len(rest), 0, -1)
            length = next((n for n in lengths if identities[:n] in space.wholes), 1)
            sizes.append(prod(part.size for part in rest[:length]))
            rest = rest[length:]
        return tuple(sizes)

    def _identities(self, groups: Iterable[tuple[Axis, ...]]) -> set[int]:
        return {part.identity for axes in groups for axis in axes for part in self._known.parts(axis)}

    def margin(self, axis: Axis, clock: int) -> Margin | None:
        """Return the margin of an axis that was padded when the clock said so, and was cropped later on."""
        for one in reversed(self._padded):
            if one.start <= clock < one.end and self._known.parts(axis) == (self._at(one),):
                return one.margin
        return None

    def _at(self, padded: _Padded) -> Part:
        return Part(self._known.root(padded.part.identity), padded.part.size)

    def _pad(self, known: Sequence[Axis], amounts: Sequence[int]) -> None:
        for pair in range(len(amounts) // 2):
            before, after = amounts[2 * pair : 2 * pair + 2]
            axis = known[-1 - pair]
            if len(axis) == 1 and min(before, after) >= 0 and before + after:
                part = Part(axis[0].identity, axis[0].size + before + after)
                self._padded.append(_Padded(Margin(self._pads, pair), part, before, after, self.clock))
        self._pads += 1

    def _crop(self, known: Sequence[Axis], shape: Sequence[int], strides: Sequence[int], offset: int) -> None:
        """Take note of a slice that cuts exactly off what was padded, along all of its axes."""
        cut = []
        for axis, size, stride in zip(known, shape, strides, strict=True):
            whole = self._known.parts(axis)
            for one in reversed(self._padded):
                if whole == (self._at(one),) and size == one.part.size - one.before - one.after:
                    cut.append(one)
                    offset -= one.before * stride
                    break
        for one in cut if offset == 0 else ():
            one.end = self.clock

    def _made(
        self,
        func: Callable[..., Any],
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        entered: Sequence[torch.Tensor],
        tensor: torch.Tensor,
    ) -> tuple[Axis, ...] | None:
        first, known = entered[0], self.of(entered[0])
        same_rank = first.ndim == tensor.ndim
        if name in _VIEWS:
            return self._viewed(func, args, kwargs, tensor) if args and args[0] is first else None
        if name in _RESHAPES:
            return self._known.reshaped(known, tensor.shape)
        if name == "view_as_real":
            return (*known, self._known.new(2))
        if name == "view_as_complex":
            return known[:-1]
        if name == "linear" and same_rank:
            return (*known[:-1], self._known.new(tensor.shape[-1]))
        if name.startswith("conv") and name[-2:] in ("1d", "2d", "3d") and same_rank:
            channel = tensor.ndim - int(name[-2]) - 1
            self._convolved.append(tuple(known[channel + 1 :]))
            new = self._known.new(tensor.shape[channel])
            return self._known.resized((*known[:channel], new, *known[channel + 1 :]), tensor.shape)
        if name in _MIXING or name in FORWARD or name in INVERSE or name.startswith("linalg"):
            return None
        if same_rank and (name in _SAME_ORDER or "pool" in name or name.startswith("upsample")):
            return self._known.resized(known, tensor.shape)
        return self._elementwise(entered, tensor.shape)

    def _viewed(
        self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], tensor: torch.Tensor
    ) -> tuple[Axis, ...] | None:
        """Do to strides that tell the axes apart what was done to the tensor."""
        source: torch.Tensor = args[0]
        strides = _PRIMES[: source.ndim]
        try:
            probe = func(torch.empty_strided(source.shape, strides, device="meta"), *args[1:], **kwargs)
        except Exception:  # noqa: BLE001 - an index may be anything, and what it does to values is not asked
            return None
        known, axes = self.of(source), []
        if probe.shape != tensor.shape:
            return None
        for size, stride in zip(probe.shape, probe.stride(), strict=True):
            found = [axis for axis, prime in enumerate(strides) if stride and stride % prime == 0]
            if size > 1 and stride and not found:
                return None
            kept = size > 1 and bool(found)
            axes.append(known[found[0]] if kept else self._known.new(size))
        if probe.stride() == strides:
            self._crop(known, probe.shape, strides, int(probe.storage_offset()))
        return self._known.resized(axes, tensor.shape)

    def _elementwise(self, entered: Sequence[torch.Tensor], shape: torch.Size) -> tuple[Axis, ...] | None:
        """Return the axes of what has the shape of its operands together: they have the same axes then."""
        try:
            if torch.broadcast_shapes(*(one.shape for one in entered)) != shape:  # type: ignore[no-untyped-call]
                return None
        except RuntimeError:
            return None
        axes: list[Axis] = []
        for back in range(1, len(shape) + 1):
            size = shape[-back]
            same = [self.of(one)[-back] for one in entered if one.ndim >= back and one.shape[-back] == size]
            if size > 1:
                for other in same[1:]:
                    self._known.unite(same[0], other)
            axes.append(same[0])
        return tuple(reversed(axes))

    def _write(self, target: Any, value: torch.Tensor) -> None:
        if target is not value and self._axes.get(target) is None and target.ndim == value.ndim:
            self._axes.set(target, self._known.resized(self.of(value), target.shape))


def _with_axes(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return the tensors that have a shape; nested ones have none."""
    return [tensor for tensor in tensors if not tensor.is_nested]
