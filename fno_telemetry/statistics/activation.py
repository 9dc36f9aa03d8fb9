"""A tensor prepared for statistics: in a common layout, in float32 or wider, with non-finite elements masked.

Values that several statistics need are computed once and kept as long as the object.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

from fno_telemetry.isolation.function_transforms import is_batched
from fno_telemetry.statistics.field_energy import FieldEnergy, compute_field_energy
from fno_telemetry.statistics.sums import ValueSums, compute_value_sums

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

    `field` has the shape (B, C, E, *S): B is 1 without a sample axis, C is 1 without a channel axis, E holds
    all other axes. Non-finite elements are 0 in it; `finite` marks the finite ones, and may be None if all
    are. `field` may share memory with the tensor and must not be written to.
    """

    def __init__(self, tensor: torch.Tensor, layout: Layout) -> None:
        source = tensor.detach()
        self.dtype = source.dtype
        self.device = source.device
        self.layout = layout
        self.accumulator = torch.float32 if source.device.type == "mps" else torch.float64
        self.complex = source.is_complex()
        raw = self._arrange(source)
        self.count = raw.numel()
        self.sizes = tuple(raw.shape[3:])
        self._ends: tuple[torch.Tensor, torch.Tensor] | None = None
        self.finite, self.field = self._mask_non_finite(raw)

    @property
    def samples(self) -> int:
        """Size of the sample axis; 1 without one."""
        return self.field.shape[0]

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
        """Whether reading a value is free: true on the CPU; other devices have to synchronise."""
        return self.device.type == "cpu"

    @cached_property
    def flat(self) -> torch.Tensor:
        """The values in one dimension; on the host only finite ones, on other devices see `flat_finite`."""
        flat = self.values.reshape(-1)
        return flat[self.finite.reshape(-1)] if self.on_host and self.finite is not None else flat

    @cached_property
    def flat_finite(self) -> torch.Tensor | None:
        """A mask of the finite elements of `flat`; None if all are finite."""
        return None if self.on_host or self.finite is None else self.finite.reshape(-1)

    @cached_property
    def finite_count(self) -> torch.Tensor:
        """The number of finite elements, int64."""
        if self.finite is None:
            return torch.tensor(self.count, dtype=torch.int64, device=self.device)
        return torch.count_nonzero(self.finite)

    @cached_property
    def extremes(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The smallest and largest finite value; (inf, -inf) if there is none."""
        if self._ends is not None:
            return self._ends
        flat, finite = self.flat, self.flat_finite
        if flat.numel() == 0:
            inf = torch.tensor(torch.inf, device=self.device, dtype=self.values.dtype)
            return inf, -inf
        if finite is None:
            low, high = torch.aminmax(flat)
            return low, high
        return torch.where(finite, flat, torch.inf).amin(), torch.where(finite, flat, -torch.inf).amax()

    @cached_property
    def scale(self) -> torch.Tensor | None:
        """A power of two near the largest magnitude; None if squares are safe without scaling."""
        if self.count == 0:
            return None
        low, high = self.extremes
        peak = torch.maximum(low.abs(), high.abs()).to(self.accumulator)
        extreme = torch.isfinite(peak) & (peak > 0) & ((peak >= _SAFE) | (peak <= 1 / _SAFE))
        if self.on_host and not extreme:
            return None
        # With a larger exponent than this, the inverse would underflow.
        exponent = 1022 if self.field.dtype in (torch.float64, torch.complex128) else 126
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
    def value_sums(self) -> ValueSums:
        """Sums over its finite values, for all statistics that need them."""
        return compute_value_sums(self)

    @property
    def energy(self) -> torch.Tensor:
        """The sum of |x|^2 over its finite elements; it may overflow float64."""
        sums, unit = self.value_sums, self.unit
        whole = sums.energy + self.finite_count.to(sums.mean.dtype) * sums.mean.square()
        return whole * unit * unit

    @cached_property
    def field_energy(self) -> FieldEnergy:
        """The energy of its fields over frequency, from one transform for all statistics that need it."""
        return compute_field_energy(self)

    @cached_property
    def block_elements(self) -> int:
        """The number of elements to process at a time."""
        return _HOST_BLOCK if self.on_host else _DEVICE_BLOCK

    def field_blocks(self, elements: int | None = None) -> Iterator[tuple[slice, slice]]:
        """Yield slices of samples and channels that cover all fields in blocks of whole fields."""
        limit = elements or self.block_elements
        batch, channels = self.field.shape[:2]
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
        dtype = torch.float32 if source.dtype.itemsize == 1 else _WIDER.get(source.dtype, source.dtype)
        arranged = arranged.to(dtype, memory_format=torch.contiguous_format).contiguous()
        return arranged.resolve_conj().resolve_neg().reshape(batch, channels, rest, *arranged.shape[first:])

    def _mask_non_finite(self, raw: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
        if self.on_host and self._all_finite(raw):
            self.nan_count = torch.zeros((), dtype=torch.int64, device=raw.device)
            return None, raw
        self.nan_count = torch.count_nonzero(torch.isnan(raw))
        finite = torch.isfinite(raw)
        return finite, torch.where(finite, raw, 0)

    def _all_finite(self, raw: torch.Tensor) -> bool:
        if raw.numel() == 0:
            return True
        # One pass is enough: aminmax propagates NaN, and infinities are extremes.
        low, high = torch.aminmax(torch.view_as_real(raw) if self.complex else raw)
        if not (torch.isfinite(low) & torch.isfinite(high)):
            return False
        if not self.complex:
            self._ends = low, high
        return True
