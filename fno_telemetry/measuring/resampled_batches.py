"""The same fields at another resolution: every field of a batch resampled over its spatial axes."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fno_telemetry.errors import InputError, OptionError
from fno_telemetry.records import CaptureRecord, TensorRecord
from fno_telemetry.sources.batch_parts import as_tensor
from fno_telemetry.sources.batch_words import describe_value
from fno_telemetry.statistics.resampling import resample
from fno_telemetry.tracing.nested_tensors import map_objects

_LEAST_POINTS = 2


@dataclass(frozen=True)
class Resampling:
    """How the fields of a capture are brought to another grid: `before` and `after` are sizes by axis.

    `entered` are the records of what went into the model, `target` that of what it was compared with.
    """

    factor: float
    before: tuple[int, ...]
    after: tuple[int, ...]
    entered: tuple[TensorRecord, ...]
    target: TensorRecord | None

    @classmethod
    def of(cls, record: CaptureRecord, factor: float) -> "Resampling":
        """Return that of a capture's own fields; InputError where they have no other resolution.

        Sizes that are not whole are rounded, halves up.
        """
        check_factor(factor)
        fields = next((one for one in record.inputs if one.spatial_axes), None)
        if fields is None:
            raise InputError(
                "no input has spatial axes, so there is no other resolution; `given` names axes by hand"
            )
        before = _sizes_of(fields)
        after = tuple(math.floor(size * factor + 0.5) for size in before)
        spelled = " x ".join(map(str, before))
        if after == before:
            raise InputError(f"`also_at` {factor:g}: {spelled} points stay as they are; choose a larger step")
        if min(after) < _LEAST_POINTS:
            raise InputError(f"`also_at` {factor:g}: of {spelled} points, fewer than two would be left")
        return cls(factor, before, after, record.inputs, record.target)

    @property
    def note(self) -> str | None:
        """A line on sizes that had to be rounded; None where all are whole."""
        exact = [size * float(self.factor) for size in self.before]
        if all(map(float.is_integer, exact)):
            return None
        wanted, found = (" x ".join(f"{size:g}" for size in sizes) for sizes in (exact, self.after))
        return f"{wanted} points are rounded to {found}"

    def apply(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yield the batches with all of their fields resampled, and all else as it is.

        InputError for fields of a type that has no spectrum, such as masks of whole numbers.
        """
        for batch in batches:
            tensors = map_objects(batch, np.ndarray, as_tensor)
            yield map_objects(tensors, torch.Tensor, self._resample)

    def _resample(self, tensor: torch.Tensor) -> torch.Tensor:
        axes = self._find_axes(tuple(tensor.shape))
        if not axes:
            self._check_size(tensor)
            return tensor
        if not (tensor.is_floating_point() or tensor.is_complex()):
            raise InputError(
                f"{describe_value(tensor)} cannot be resampled: only fields of real or complex numbers have "
                "a spectrum; convert it, or capture at one resolution"
            )
        return resample(tensor, axes, self.after)

    def _check_size(self, tensor: torch.Tensor) -> None:
        """Raise InputError for a field of the input, or of the target, that has other points than those."""
        shape = tuple(tensor.shape)
        known = [*self.entered, *([] if self.target is None else [self.target])]
        alike = [one for one in known if one.spatial_axes and len(one.shape) == len(shape)]
        if any(one.shape[1:] == shape[1:] for one in alike):
            return
        for one in alike:
            others = [axis for axis in range(1, len(shape)) if axis not in one.spatial_axes]
            if _sizes_of(one) == self.before and all(one.shape[axis] == shape[axis] for axis in others):
                spelled = " x ".join(map(str, self.before))
                raise InputError(
                    f"{describe_value(tensor)} does not have the {spelled} points of the first batch: only "
                    "fields of one size can be captured at another resolution"
                )

    def _find_axes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the axes along which a tensor of a batch has the points of the fields; () for another."""
        known = [*self.entered, *([] if self.target is None else [self.target])]
        for one in known:
            # Batches differ in their number of samples.
            is_alike = len(one.shape) == len(shape) and one.shape[1:] == shape[1:]
            if is_alike and len(one.spatial_axes) == len(self.before) and 0 not in one.spatial_axes:
                return one.spatial_axes if _sizes_of(one) == self.before else ()
        runs = range(len(shape) - len(self.before), -1, -1)
        # The first axis counts the samples, unless nothing else fits.
        starts = [at for at in runs if shape[at : at + len(self.before)] == self.before]
        start = next((at for at in starts if at > 0), next(iter(starts), None))
        return () if start is None else tuple(range(start, start + len(self.before)))


def check_factor(factor: float) -> None:
    """Raise OptionError for what is no factor to another resolution."""
    is_number = isinstance(factor, int | float) and not isinstance(factor, bool)
    if not is_number or not math.isfinite(factor) or factor <= 0 or factor == 1:
        raise OptionError(f"`also_at` is {factor!r}: expected a positive number but 1, such as 2 or 0.5")


def _sizes_of(record: TensorRecord) -> tuple[int, ...]:
    return tuple(record.shape[axis] for axis in record.spatial_axes)
