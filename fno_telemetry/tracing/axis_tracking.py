"""Follows axes from tensor to tensor through the torch functions of one forward.

Permutations, additions and convolutions show which axes are the same; a Fourier transform over one of them
shows that it is spatial, and so are all axes that are the same.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from fno_telemetry.tracing.axis_groups import AxisGroup, AxisGroups, PlainAxis
from fno_telemetry.tracing.fourier_calls import FORWARD, INVERSE, FourierCall
from fno_telemetry.tracing.module_calls import Call
from fno_telemetry.tracing.tensor_shapes import read_shape
from fno_telemetry.tracing.tensor_table import TensorTable
from fno_telemetry.tracing.torch_functions import name_of, pad_amounts


class Space(NamedTuple):
    """The spatial axes by number, and the groups of them that count as one axis wherever they appear."""

    axes: frozenset[int]
    groups: frozenset[tuple[int, ...]]


class PadPair(NamedTuple):
    """The padding of an axis: pair number `pair` of the amounts in call number `call` of `pad`."""

    call: int
    pair: int


@dataclass
class _PaddedAxis:
    pair: PadPair
    axis: PlainAxis  # with its size after padding
    before: int
    after: int
    start: int  # by the tracker's clock
    end: int = 0  # when exactly this padding was last cropped again


_VIEWS = {
    *("permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "t", "T", "mT", "H", "mH"),
    *("adjoint", "squeeze", "unsqueeze", "expand", "expand_as", "broadcast_to", "narrow", "select"),
    "__getitem__",
}
_RESHAPES = {"view", "reshape", "flatten", "unflatten", "view_as", "reshape_as"}
_SAME_ORDER = {
    *("pad", "interpolate", "chunk", "split", "tensor_split", "index_select", "cat", "concat", "concatenate"),
    *("glu", "diff", "grid_sample", "scaled_dot_product_attention", "pixel_shuffle", "pixel_unshuffle"),
    *("repeat", "tile"),
}
_MIXING = {
    *("tensordot", "baddbmm", "addmm", "addbmm", "inner", "outer", "lstm"),
    *("multi_head_attention_forward", "bilinear", "unfold", "fold", "gru", "gather", "cdist", "rot90"),
    "chain_matmul",
}
_PRODUCTS = {"matmul", "__matmul__", "__rmatmul__", "mm", "bmm"}
_PRIMES = (1009, 1013, 1019, 1021, 1031, 1033, 1039, 1049, 1051, 1061, 1063, 1069)
"""Strides of a probe tensor: no step of a slice turns one into another."""


class AxisTracker:
    """Follows axes through one forward; a function that is not known to keep axes creates new ones."""

    def __init__(self) -> None:
        self._by_tensor: TensorTable[tuple[AxisGroup, ...]] = TensorTable()
        self._groups = AxisGroups()
        self.clock = 0  # how many tensors the caller has noted so far
        self._pads = 0
        self._padded: list[_PaddedAxis] = []
        self._frequencies: dict[int, int] = {}  # by number of a spatial axis: its axis of frequencies
        self._spatial: dict[int, int] = {}  # by number of an axis of frequencies: its spatial axis
        self._transformed_back: set[int] = set()  # axes of frequencies that an inverse transform was given
        self._convolved: list[tuple[AxisGroup, ...]] = []  # the axes of each convolution
        self._transformed: list[tuple[Call, tuple[AxisGroup, ...]]] = []  # the axes of each Fourier transform

    def groups_of(self, tensor: torch.Tensor) -> tuple[AxisGroup, ...]:
        """Return the axes of a tensor; new ones if the tensor was not seen before."""
        shape = read_shape(tensor) or ()
        known = self._by_tensor.get(tensor)
        if known is None or len(known) != len(shape):
            known = tuple(self._groups.create(size) for size in shape)
            self._by_tensor.set(tensor, known)
        return known

    def follow_function(
        self,
        func: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        inputs: Sequence[torch.Tensor],
        outputs: Sequence[torch.Tensor],
    ) -> None:
        """Record what a function did to axes; `inputs` are the followed tensors among its arguments."""
        inputs, outputs = _with_axes(inputs), _with_axes(outputs)
        if not inputs:
            return
        name = name_of(func)
        if name == "pad":
            self._note_pad(self.groups_of(inputs[0]), pad_amounts(args, kwargs))
        if name == "__setitem__":
            self._note_write(args[0], inputs[-1])
            return
        for tensor in outputs:
            axes = self._follow(func, name, args, kwargs, inputs, tensor)
            if axes is not None and all(tensor is not one for one in inputs):
                self._by_tensor.set(tensor, axes)

    def follow_transform(
        self, call: FourierCall, parent: Call, tensor: torch.Tensor, output: torch.Tensor
    ) -> None:
        """Record a Fourier transform, which replaces spatial axes by axes of frequencies, or the inverse."""
        axes = list(self.groups_of(tensor))
        to, back = (self._spatial, self._frequencies) if call.inverse else (self._frequencies, self._spatial)
        for axis in call.axes:
            before = self._groups.resolve(axes[axis])
            (after,) = self._groups.create(output.shape[axis])
            if len(before) == 1:
                if call.inverse:
                    self._transformed_back.add(before[0].number)
                number = to.setdefault(before[0].number, after.number)
                back.setdefault(self._groups.find_root(number), before[0].number)
                after = after._replace(number=number)
            axes[axis] = (after,)
        self._by_tensor.set(output, tuple(axes))
        spatial = self.groups_of(output if call.inverse else tensor)
        self._transformed.append((parent, tuple(spatial[axis] for axis in call.axes)))

    def follow_module(self, entered: torch.Tensor, output: torch.Tensor) -> None:
        """Let an output of the shape of its input keep the axes, if the way from one to the other was lost.

        It was not if an axis is the same, or that of the Fourier transform of the other one. So does a
        normalisation that whitens by matrix products, over whatever it flattened space with.
        """
        shape = read_shape(output)
        if shape is None or shape != read_shape(entered) or output is entered:
            return
        before, after = self.groups_of(entered), self.groups_of(output)
        known = {axis.number for group in before for axis in self._groups.resolve(group) if axis.size > 1}
        for to in (self._frequencies, self._spatial):
            known |= {self._groups.find_root(to[number]) for number in [*known] if number in to}
        if not any(axis.number in known for group in after for axis in self._groups.resolve(group)):
            self._by_tensor.set(output, before)

    def find_space(self, counts: Callable[[Call], bool]) -> Space:
        """Return the spatial axes: those of the transforms of calls that count, else of all convolutions.

        All axes of one convolution are spatial if one of them is.
        """
        spatial = self._plain_axes(axes for call, axes in self._transformed if counts(call))
        convolutions = [self._plain_axes([axes]) for axes in self._convolved]
        if not spatial:
            spatial = spatial.union(*convolutions)
        before = 0
        while len(spatial) > before:
            before = len(spatial)
            spatial = spatial.union(*(axes for axes in convolutions if axes & spatial))
        # The only axis of a pointwise convolution may have been flattened from several.
        known = [axes for axes in self._convolved if len(axes) > 1]
        known += [axes for _, axes in self._transformed]
        groups = {
            tuple(axis.number for axis in self._groups.resolve(group)) for axes in known for group in axes
        }
        return Space(frozenset(spatial), frozenset(groups))

    def find_frequencies(self, space: Space) -> frozenset[int]:
        """Return the axes of frequencies by number: those of coefficients that are transformed back."""
        return frozenset(map(self._groups.find_root, self._transformed_back)) - space.axes

    def holds_any(self, group: AxisGroup, numbers: frozenset[int]) -> bool:
        """Whether an axis is one of these, or was flattened from one of them."""
        return any(axis.number in numbers for axis in self._groups.resolve(group))

    def spatial_parts(self, group: AxisGroup, space: Space) -> tuple[AxisGroup, ...]:
        """Return the spatial axes that an axis was flattened from, or the axis; () if any is not spatial."""
        axes = self._groups.resolve(group)
        spatial = [axis.number in space.axes for axis in axes]
        if spatial[0] and not any(spatial[1:]) and all(map(self._groups.is_split_off, axes[1:])):
            # Patches put back: positions, and inside each of them what was a channel.
            return (axes,)
        if not all(spatial):
            return ()
        parts, rest = [], axes
        while rest:
            numbers = tuple(axis.number for axis in rest)
            lengths = range(len(rest), 0, -1)
            length = next((n for n in lengths if numbers[:n] in space.groups), 1)
            parts.append(rest[:length])
            rest = rest[length:]
        return tuple(parts)

    def _plain_axes(self, tensors: Iterable[tuple[AxisGroup, ...]]) -> set[int]:
        return {axis.number for groups in tensors for group in groups for axis in self._groups.resolve(group)}

    def find_padding(self, group: AxisGroup, clock: int) -> PadPair | None:
        """Return the padding of an axis at this time of the clock; None if it was never cropped again."""
        for padded in reversed(self._padded):
            if padded.start <= clock < padded.end and self._is_padded(group, padded):
                return padded.pair
        return None

    def _is_padded(self, group: AxisGroup, padded: _PaddedAxis) -> bool:
        axis = PlainAxis(self._groups.find_root(padded.axis.number), padded.axis.size)
        return self._groups.resolve(group) == (axis,)

    def _note_pad(self, groups: Sequence[AxisGroup], amounts: Sequence[int]) -> None:
        for pair in range(len(amounts) // 2):
            before, after = amounts[2 * pair : 2 * pair + 2]
            group = groups[-1 - pair]
            if len(group) == 1 and min(before, after) >= 0 and before + after:
                axis = PlainAxis(group[0].number, group[0].size + before + after)
                self._padded.append(_PaddedAxis(PadPair(self._pads, pair), axis, before, after, self.clock))
        self._pads += 1

    def _note_crop(
        self, groups: Sequence[AxisGroup], shape: Sequence[int], strides: Sequence[int], offset: int
    ) -> None:
        """Record a slice that removes exactly the padding of all the axes that it cuts."""
        cropped = []
        for group, size, stride in zip(groups, shape, strides, strict=True):
            for padded in reversed(self._padded):
                valid = padded.axis.size - padded.before - padded.after
                if size == valid and self._is_padded(group, padded):
                    cropped.append(padded)
                    offset -= padded.before * stride
                    break
        for padded in cropped if offset == 0 else ():
            padded.end = self.clock

    def _follow(
        self,
        func: Callable[..., Any],
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        inputs: Sequence[torch.Tensor],
        tensor: torch.Tensor,
    ) -> tuple[AxisGroup, ...] | None:
        first, known = inputs[0], self.groups_of(inputs[0])
        same_rank = first.ndim == tensor.ndim
        if name in _VIEWS:
            return self._follow_view(func, args, kwargs, tensor) if args and args[0] is first else None
        if name in _RESHAPES:
            return self._groups.reshape(known, tensor.shape)
        if name == "stack" and tensor.ndim == first.ndim + 1:
            return self._follow_stack(args, kwargs, inputs, tensor)
        if name == "unbind" and tensor.ndim == first.ndim - 1:
            dim = _dim_of(args, kwargs) % first.ndim
            return (*known[:dim], *known[dim + 1 :])
        if name == "einsum":
            return self._follow_einsum(args, tensor)
        if name in _PRODUCTS:
            return self._follow_product([*args, *kwargs.values()], tensor)
        if name == "view_as_real":
            return (*known, self._groups.create(2))
        if name == "view_as_complex":
            return known[:-1]
        if name == "linear" and same_rank:
            return (*known[:-1], self._groups.create(tensor.shape[-1]))
        if name.startswith("conv") and name[-2:] in ("1d", "2d", "3d") and same_rank:
            channel = tensor.ndim - int(name[-2]) - 1
            self._convolved.append(tuple(known[channel + 1 :]))
            new = self._groups.create(tensor.shape[channel])
            return self._groups.resize((*known[:channel], new, *known[channel + 1 :]), tensor.shape)
        if name in _MIXING or name in FORWARD or name in INVERSE or name.startswith("linalg"):
            return None
        if same_rank and (name in _SAME_ORDER or "pool" in name or name.startswith("upsample")):
            return self._groups.resize(known, tensor.shape)
        return self._follow_elementwise(inputs, tensor.shape)

    def _follow_einsum(self, args: Sequence[Any], tensor: torch.Tensor) -> tuple[AxisGroup, ...] | None:
        """Read the axes that stay off the letters of the equation."""
        equation = args[0].replace(" ", "") if isinstance(args[0], str) else ""
        terms, arrow, result = equation.partition("->")
        operands = args[1] if len(args) == 2 and isinstance(args[1], tuple | list) else args[1:]
        if not arrow or "." in equation or len(result) != tensor.ndim:
            return None
        found: dict[str, AxisGroup] = {}
        for letters, operand in zip(terms.split(","), operands, strict=True):
            if self._by_tensor.get(operand) is not None:
                found = dict(zip(letters, self.groups_of(operand), strict=True)) | found
        sizes = zip(result, tensor.shape, strict=True)
        return tuple(found.get(letter) or self._groups.create(size) for letter, size in sizes)

    def _follow_product(self, arguments: Sequence[Any], tensor: torch.Tensor) -> tuple[AxisGroup, ...] | None:
        """Return the axes of a matrix product: rows of the first matrices, columns of the second ones."""
        matrices = [one for one in arguments if isinstance(one, torch.Tensor)][:2]
        axes = [self._groups.create(size) for size in tensor.shape]
        if len(matrices) < 2 or min(one.ndim for one in matrices) < 2:
            return None
        first, second = matrices
        for operand, kept in ((first, -2), (second, -1)):
            if self._by_tensor.get(operand) is not None:
                groups = self.groups_of(operand)
                axes[kept] = groups[kept]
                for axis in range(-operand.ndim, -2):
                    if operand.shape[axis] == tensor.shape[axis]:
                        axes[axis] = groups[axis]
        return tuple(axes)

    def _follow_stack(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        inputs: Sequence[torch.Tensor],
        tensor: torch.Tensor,
    ) -> tuple[AxisGroup, ...]:
        """Return the axes of tensors that were stacked, which they share, and the new one between them."""
        axes = list(self.groups_of(inputs[0]))
        for other in inputs[1:]:
            for group, same in zip(axes, self.groups_of(other), strict=True):
                self._groups.unite(group, same)
        dim = _dim_of(args, kwargs) % tensor.ndim
        axes.insert(dim, self._groups.create(tensor.shape[dim]))
        return tuple(axes)

    def _follow_view(
        self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], tensor: torch.Tensor
    ) -> tuple[AxisGroup, ...] | None:
        """Apply the function to a probe whose strides identify its axes, and read the axes off the result."""
        source: torch.Tensor = args[0]
        strides = _PRIMES[: source.ndim]
        try:
            probe = func(torch.empty_strided(source.shape, strides, device="meta"), *args[1:], **kwargs)
        except Exception:  # noqa: BLE001 - an index can be anything, and not all of them work on a meta tensor
            return None
        known, axes = self.groups_of(source), []
        if probe.shape != tensor.shape:
            return None
        for size, stride in zip(probe.shape, probe.stride(), strict=True):
            sources = [axis for axis, prime in enumerate(strides) if stride and stride % prime == 0]
            if size > 1 and stride and not sources:
                return None
            kept = size > 1 and bool(sources)
            axes.append(known[sources[0]] if kept else self._groups.create(size))
        if probe.stride() == strides:
            self._note_crop(known, probe.shape, strides, int(probe.storage_offset()))
        return self._groups.resize(axes, tensor.shape)

    def _follow_elementwise(
        self, inputs: Sequence[torch.Tensor], shape: torch.Size
    ) -> tuple[AxisGroup, ...] | None:
        """Return the axes of a result with the broadcast shape of its operands, which then share axes."""
        try:
            if torch.broadcast_shapes(*(one.shape for one in inputs)) != shape:  # type: ignore[no-untyped-call]
                return None
        except RuntimeError:
            return None
        axes: list[AxisGroup] = []
        for back in range(1, len(shape) + 1):
            size = shape[-back]
            of_size = [one for one in inputs if one.ndim >= back and one.shape[-back] == size]
            same = [self.groups_of(one)[-back] for one in of_size]
            if size > 1:
                for other in same[1:]:
                    self._groups.unite(same[0], other)
            axes.append(same[0])
        return tuple(reversed(axes))

    def _note_write(self, target: Any, value: torch.Tensor) -> None:
        if target is not value and self._by_tensor.get(target) is None and target.ndim == value.ndim:
            self._by_tensor.set(target, self._groups.resize(self.groups_of(value), target.shape))


def _dim_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    return int(args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0)))


def _with_axes(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [tensor for tensor in tensors if read_shape(tensor) is not None]
