"""A tensor prepared for statistics: in a common layout, in float32 or wider, with non-finite elements masked.

Values that several statistics need are computed once and kept as long as the object.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from fno_telemetry.isolation.function_transforms import is_batched
from fno_telemetry.statistics import kernels, reading
from fno_telemetry.statistics.field_energy import (
    FieldEnergy,
    HostEnergy,
    compute_field_energy,
    compute_host_energy,
)
from fno_telemetry.statistics.memory_blocks import HOST_BLOCK
from fno_telemetry.statistics.shares import WHOLE, Shares, spread
from fno_telemetry.statistics.sums import ValueSums, compute_host_sums, compute_value_sums

_WIDER = {torch.float16: torch.float32, torch.bfloat16: torch.float32, torch.complex32: torch.complex64}

_UNMEASURABLE = ("float4_e2m1fn_x2",)
"""Floating point types that torch cannot convert to any other type."""

_SAFE = 1e12
"""Magnitudes in [1/_SAFE, _SAFE] neither overflow nor underflow when squared and summed in float32."""

_HOST_BLOCK, _DEVICE_BLOCK = 1 << 17, 1 << 22
"""Elements processed at a time: float64 copies of a block fit in the cache."""


@dataclass(frozen=True)
class Layout:
    """The sample axis (0 or None), the channel axis (or None) and the spatial axes of a tensor.

    For each spatial axis, `unflattened` holds the sizes that it was flattened from. For each of these sizes,
    `padding` holds the amounts before and after, which are not measured. Both are () if there are none.
    """

    sample: int | None
    channel: int | None
    space: tuple[int, ...] = ()
    unflattened: tuple[tuple[int, ...], ...] = ()
    padding: tuple[tuple[int, ...], ...] = ()


def unmeasurable(tensor: torch.Tensor) -> str | None:
    """Return the reason why this tensor cannot be measured, None if it can."""
    if is_batched(tensor):
        return "tensors inside vmap cannot be measured; capture the model without vmap"
    if tensor.is_nested:
        return "nested tensors are not measured"
    if tensor.layout is not torch.strided:
        return f"{tensor.layout} tensors are not measured"
    if tensor.is_meta:
        return "a meta tensor has no values"
    name = dtype_name(tensor.dtype)
    if not (tensor.is_floating_point() or tensor.is_complex()) or name in _UNMEASURABLE:
        return f"{name} values are not measured"
    return None


def dtype_name(dtype: torch.dtype) -> str:
    """Return "float32" for torch.float32."""
    return str(dtype).removeprefix("torch.")


class Activation:
    """One real or complex floating point tensor of any shape, arranged as samples x channels x extra x space.

    `field` has the `shape` (B, C, E, *S): B is 1 without a sample axis, C is 1 without a channel axis, E
    holds all other axes. Non-finite elements are 0 in it; `finite` marks the finite ones, and may be None if
    all are. `field` may share memory with the tensor and must not be written to. `stored` is the same without
    a copy: on the host, many values of half precision are widened block by block, as long as nobody asks for
    `field`. Percentiles and spectra may be those of a share, see `statistics.shares`. A state of the only
    batch of a capture is merged with no other one.
    """

    def __init__(
        self,
        tensor: torch.Tensor,
        layout: Layout,
        shares: Shares = WHOLE,
        is_only_batch: bool = False,
        row_sums: kernels.RowSums | None = None,
    ) -> None:
        source = tensor.detach()
        self.dtype = source.dtype
        self.device = source.device
        self.layout = layout
        self.shares = shares
        self.is_only_batch = is_only_batch
        if row_sums is not None:
            self.row_sums = row_sums
        self.accumulator = torch.float32 if source.device.type == "mps" else torch.float64
        self.complex = source.is_complex()
        self.stored = raw = self._arrange(source)
        self.shape = tuple(raw.shape)
        self.count = raw.numel()
        self.sizes = self.shape[3:]
        self.finite: torch.Tensor | None = None
        self._nan_count: torch.Tensor | None = None
        if self.on_host and type(raw) is not torch.Tensor:
            # Every function costs less of a plain tensor than of a subclass.
            self.stored = torch.from_numpy(reading.read(raw))
        if not (self.on_host and self._all_finite()):
            self._mask_non_finite()

    @property
    def samples(self) -> int:
        """Size of the sample axis; 1 without one."""
        return self.shape[0]

    @cached_property
    def field(self) -> torch.Tensor:
        """All values in float32 or wider."""
        return self.stored.to(self.precision)

    @property
    def precision(self) -> torch.dtype:
        """The type of `field`."""
        return torch.float32 if self.stored.dtype.itemsize < 4 else self.stored.dtype

    @cached_property
    def values(self) -> torch.Tensor:
        """The real values for value statistics: x, or |z| by hypot; the same shape as `field`."""
        if not self.complex:
            return self.field
        real, imaginary = self.field.real, self.field.imag
        magnitude = torch.hypot(real, imaginary)
        if magnitude.dtype == self.accumulator or magnitude.numel() == 0:
            return magnitude
        if self.on_host and torch.isfinite(magnitude.amax()):
            return magnitude
        # |z| of a finite z can overflow float32, but not float64. Chosen per element, so that no value
        # depends on the rest of the batch.
        wide = torch.hypot(real.to(self.accumulator), imaginary.to(self.accumulator))
        return torch.where(torch.isfinite(magnitude), magnitude.to(self.accumulator), wide)

    @cached_property
    def on_host(self) -> bool:
        """Whether reading a value is free, also by NumPy: true for most tensors on the CPU."""
        if self.stored.dtype.itemsize < 4:
            return reading.is_readable(self.stored)
        return reading.as_array(self.stored) is not None

    @cached_property
    def rows(self) -> kernels.Values:
        """The values on the host as (rows, values): a row is a field or, without space, a channel."""
        axes = self.shape
        rows = axes[0] * axes[1] * (axes[2] if self.sizes else 1)
        values = self.values if self.complex else self.stored
        return reading.read_values(values).reshape(rows, self.count // max(rows, 1))

    @cached_property
    def flat_array(self) -> kernels.Values:
        """`flat` of an activation on the host."""
        return self.rows.reshape(-1) if self.finite is None else self.flat.numpy()

    @cached_property
    def row_sums(self) -> kernels.RowSums:
        """Extremes and sums of `rows` on the host, with 0 for elements that are not finite."""
        return kernels.active().sum_rows(self.rows)

    @cached_property
    def ends(self) -> tuple[float, float]:
        """The smallest and largest finite value on the host; (inf, -inf) if there is none."""
        if self.finite is None and self.count:
            sums = self.row_sums
            return float(np.minimum.reduce(sums.low)), float(np.maximum.reduce(sums.high))
        if self.flat.numel() == 0:
            return np.inf, -np.inf
        low, high = torch.aminmax(self.flat)
        return float(low), float(high)

    @cached_property
    def flat(self) -> torch.Tensor:
        """The values in one dimension; on the host only finite ones, on other devices see `flat_finite`."""
        values = self.values if self.complex else self.stored
        flat = values.reshape(-1)
        return flat[self.finite.reshape(-1)] if self.on_host and self.finite is not None else flat

    @cached_property
    def flat_finite(self) -> torch.Tensor | None:
        """A mask of the finite elements of `flat`; None if all are finite."""
        return None if self.on_host or self.finite is None else self.finite.reshape(-1)

    @cached_property
    def _sketched_places(self) -> torch.Tensor | None:
        return spread(self.shares.elements, self.flat.numel(), self.device)

    @property
    def is_sketched_whole(self) -> bool:
        """Whether percentiles are taken of all elements, not of a share."""
        return self._sketched_places is None

    @cached_property
    def sketched(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """`flat` and `flat_finite` of the elements of which percentiles are taken."""
        flat, finite, places = self.flat, self.flat_finite, self._sketched_places
        if places is None:
            return flat, finite
        return flat.index_select(0, places), None if finite is None else finite.index_select(0, places)

    @property
    def number_of_fields(self) -> int:
        """The number of fields over space, or of other elements without space."""
        return math.prod(self.shape[:3])

    @property
    def transformed(self) -> "Activation":
        """The fields that are transformed: all of them, or a share as an activation of its own."""
        # Not kept if it is this object: it would refer to itself, and live until cycles are collected.
        return self._share_of_fields or self

    @cached_property
    def _share_of_fields(self) -> "Activation | None":
        places = spread(self.shares.fields, self.number_of_fields, self.device)
        if places is None:
            return None
        shape = (self.number_of_fields, 1, *self.sizes)
        fields = self.stored.reshape(shape)[places]
        layout = Layout(sample=0, channel=1, space=tuple(range(2, len(shape))))
        if self.finite is not None:
            fields = torch.where(self.finite.reshape(shape)[places], fields, torch.nan)
        elif self.on_host and self.sizes and not self.complex:
            return Activation(fields, layout, row_sums=self.row_sums.take(places.numpy()))
        return Activation(fields, layout)

    @property
    def nan_count(self) -> torch.Tensor:
        """The number of elements that are NaN, int64."""
        if self._nan_count is None:
            return torch.zeros((), dtype=torch.int64, device=self.device)
        return self._nan_count

    @cached_property
    def finite_count(self) -> torch.Tensor:
        """The number of finite elements, int64."""
        if self.finite is None:
            if self.on_host:
                return torch.from_numpy(np.array(self.count))
            return torch.full((), self.count, dtype=torch.int64, device=self.device)
        return torch.count_nonzero(self.finite)

    @cached_property
    def extremes(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The smallest and largest finite value; (inf, -inf) if there is none."""
        if self.on_host:
            precision = self.values.dtype if self.complex else self.precision
            low, high = torch.tensor(self.ends, dtype=precision, device=self.device)
            return low, high
        flat, finite = self.flat, self.flat_finite
        if flat.numel() == 0:
            inf = torch.tensor(torch.inf, device=self.device, dtype=self.values.dtype)
            return inf, -inf
        if finite is None:
            return flat.amin(), flat.amax()
        return torch.where(finite, flat, torch.inf).amin(), torch.where(finite, flat, -torch.inf).amax()

    @cached_property
    def scale(self) -> torch.Tensor | None:
        """A power of two near the largest magnitude; None if squares are safe without scaling."""
        if self.count == 0:
            return None
        if self.on_host:
            largest = max(abs(end) for end in self.ends)
            if not 0 < largest < np.inf or 1 / _SAFE < largest < _SAFE:
                return None
        low, high = self.extremes
        peak = torch.maximum(low.abs(), high.abs()).to(self.accumulator)
        extreme = torch.isfinite(peak) & (peak > 0) & ((peak >= _SAFE) | (peak <= 1 / _SAFE))
        # With a larger exponent than this, the inverse would underflow.
        exponent = 1022 if self.precision in (torch.float64, torch.complex128) else 126
        return torch.exp2(torch.where(extreme, torch.log2(peak), 0.0).floor().clamp(-exponent, exponent))

    @cached_property
    def scaled(self) -> torch.Tensor:
        """`field` divided by `scale`."""
        return self.field if self.scale is None else self.field * (1 / self.scale).to(self.values.dtype)

    @property
    def unit(self) -> torch.Tensor:
        """`scale`, or 1 without scaling."""
        one = torch.ones((), dtype=self.accumulator, device=self.device)
        return one if self.scale is None else self.scale

    @cached_property
    def host_sums(self) -> tuple[float, float, float]:
        """Mean, energy around it and sum of |x| of an activation on the host, in units of `scale`."""
        return compute_host_sums(self)

    @cached_property
    def value_sums(self) -> ValueSums:
        """Sums over its finite values, for all statistics that need them."""
        return compute_value_sums(self)

    @cached_property
    def host_norm(self) -> float:
        """The root of the sum of |x|^2 over the finite elements of an activation on the host."""
        if self.scale is None:
            return math.sqrt(self.row_sums.energy) if self.count else 0.0
        mean, energy, _ = self.host_sums
        return math.sqrt(energy + self.flat.numel() * mean * mean) * float(self.scale)

    @property
    def norm(self) -> torch.Tensor:
        """The root of the sum of |x|^2 over the finite elements."""
        if self.on_host:
            return torch.from_numpy(np.array(self.host_norm))
        sums = self.value_sums
        squares = sums.energy + self.finite_count.to(sums.mean.dtype) * sums.mean.square()
        return squares.sqrt() * self.unit

    @cached_property
    def field_energy(self) -> FieldEnergy:
        """The energy of its fields over frequency, from one transform for all statistics that need it."""
        return compute_field_energy(self.transformed)

    @cached_property
    def host_energy(self) -> HostEnergy:
        """The same of an activation on the host."""
        return compute_host_energy(self.transformed)

    @cached_property
    def block_elements(self) -> int:
        """The number of elements to process at a time."""
        return _HOST_BLOCK if self.on_host else _DEVICE_BLOCK

    def field_blocks(self, elements: int | None = None) -> Iterator[tuple[slice, slice]]:
        """Yield slices of samples and channels that cover all fields in blocks of whole fields."""
        limit = elements or self.block_elements
        batch, channels = self.shape[:2]
        per_sample = max(self.count // max(batch, 1), 1)
        if per_sample <= limit:
            step = limit // per_sample
            for start in range(0, batch, step):
                yield slice(start, start + step), slice(None)
            return
        step = max(limit * channels // per_sample, 1)
        for sample in range(batch):
            for start in range(0, channels, step):
                yield slice(sample, sample + 1), slice(start, start + step)

    def _arrange(self, source: torch.Tensor) -> torch.Tensor:
        if self._is_arranged(source):
            return source.view(*source.shape[:2], 1, *source.shape[2:])
        known = (self.layout.sample, self.layout.channel, *self.layout.space)
        extra = [axis for axis in range(source.ndim) if axis not in known]
        head = [axis for axis in (self.layout.sample, self.layout.channel) if axis is not None]
        batch = 1 if self.layout.sample is None else source.shape[self.layout.sample]
        channels = 1 if self.layout.channel is None else source.shape[self.layout.channel]
        rest = 1
        for axis in extra:
            rest *= source.shape[axis]
        arranged = source.permute((*head, *extra, *self.layout.space))
        first = len(head) + len(extra)
        axis = first
        for sizes in self.layout.unflattened:
            arranged = arranged.unflatten(axis, sizes)  # type: ignore[no-untyped-call]
            axis += len(sizes)
        for axis, (before, after) in enumerate(self.layout.padding, first):
            arranged = arranged.narrow(axis, before, arranged.shape[axis] - before - after)
        # Statistics run several times as fast on contiguous memory, so one copy is worth its cost.
        dtype = source.dtype
        if not self._stays_narrow(source):
            dtype = torch.float32 if source.dtype.itemsize == 1 else _WIDER.get(source.dtype, source.dtype)
        arranged = arranged.to(dtype, memory_format=torch.contiguous_format).contiguous()
        return arranged.resolve_conj().resolve_neg().reshape(batch, channels, rest, *arranged.shape[first:])

    def _is_arranged(self, source: torch.Tensor) -> bool:
        """Return whether the tensor only lacks the axis for all other axes, as most do."""
        layout = self.layout
        return (
            layout.sample == 0
            and layout.channel == 1
            and layout.space == tuple(range(2, source.ndim))
            and not (layout.unflattened or layout.padding or source.is_conj() or source.is_neg())
            and (source.dtype.itemsize > 2 or self._stays_narrow(source))
            and source.dtype is not torch.complex32
            and source.is_contiguous()
        )

    def _stays_narrow(self, source: torch.Tensor) -> bool:
        """Return whether values are widened block by block, not all at once."""
        return (
            source.dtype.itemsize < 4
            and source.numel() > HOST_BLOCK
            and type(source) is torch.Tensor
            and reading.is_free(source)
        )

    def _mask_non_finite(self) -> None:
        raw = self.field
        self.finite = finite = torch.isfinite(raw)
        self.stored = self.field = torch.where(finite, raw, 0)
        self._nan_count = torch.count_nonzero(torch.isnan(raw))

    def _all_finite(self) -> bool:
        """Return whether all elements are finite: otherwise one of their extremes is not."""
        if self.count == 0:
            return True
        if self.complex:
            low, high = torch.aminmax(torch.view_as_real(self.stored))
            return bool(torch.isfinite(low) & torch.isfinite(high))
        if all(math.isfinite(end) for end in self.ends):
            return True
        del self.rows, self.row_sums, self.ends
        return False
