"""Batches from arrays of one file: those that go into a model, and those that its output is compared with."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fno_telemetry.errors import InputError
from fno_telemetry.sources.arrays import ArrayUse, Samples, read_samples, split_batches
from fno_telemetry.sources.axis_orders import sample_axis
from fno_telemetry.sources.batch_parts import BatchParts


@dataclass(frozen=True, eq=False)  # tensors do not compare to one truth value
class FileBatches:
    """Batches, the arrays that they were made from, and which parts of them go into the model.

    A batch of a single array is a tensor; one of several is a dict by their names.
    """

    batches: list[Any]
    arrays: tuple[Samples, ...]  # the first is the first input
    parts: BatchParts


def read_file_batches(
    path: str | os.PathLike[str],
    *,
    inputs: Sequence[str] = (),
    target: Sequence[str] = (),
    key: str | None = None,
    axes: str | None = None,
    max_samples: int = 8,
    batch_size: int = 1,
    allow_complex: bool = False,
) -> FileBatches:
    """Return batches of the first samples of arrays of a file, which are read as `read_samples` does.

    `axes` and `key` are those of the first input, `inputs` the names of all; other arrays have the same order
    of axes where they have as many. InputError, one line, for arrays of unequal numbers of samples.
    """
    first_use = ArrayUse(option="inputs") if inputs else ArrayUse()
    first = read_samples(
        path,
        key=inputs[0] if inputs else key,
        axes=axes,
        max_samples=max_samples,
        allow_complex=allow_complex,
        use=first_use,
    )
    if not inputs and not target:
        return FileBatches(list(split_batches(first.values, batch_size)), (first,), BatchParts())
    name = first.key or "input"
    arrays = {name: first}
    others = [(each, ArrayUse(f"input {each}", "inputs")) for each in inputs[1:]]
    others += [(each, ArrayUse(f"target {each}", "target")) for each in target]
    for other, use in others:
        if other not in arrays:
            arrays[other] = read_samples(
                path, key=other, max_samples=max_samples, allow_complex=True, use=use, like=first.axes
            )
            _require_as_many(arrays[other], first, path)
    pieces = {each: split_batches(read.values, batch_size) for each, read in arrays.items()}
    batches = [dict(zip(pieces, parts, strict=True)) for parts in zip(*pieces.values(), strict=True)]
    parts = BatchParts((name, *inputs[1:]), tuple(target))
    return FileBatches(batches, tuple(arrays.values()), parts)


def _require_as_many(array: Samples, first: Samples, path: str | os.PathLike[str]) -> None:
    """Raise InputError where two arrays are not samples of one another."""
    one, other = _count_stored(array), _count_stored(first)
    if one != other:
        raise InputError(
            f"{os.fspath(path)}: array {array.key!a} has {one} samples (axes {array.axes} of shape "
            f"{array.stored_shape}), and array {first.key!a} has {other}; as many were expected"
        )


def _count_stored(array: Samples) -> int:
    axis = sample_axis(array.axes)
    return 1 if axis is None else array.stored_shape[axis]
