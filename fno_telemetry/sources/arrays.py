"""Samples from .npz, .npy and .pt files: never unpickled, and only as many read as are run."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch

from fno_telemetry.errors import InputError, OptionError
from fno_telemetry.sources import (
    axis_orders,
    checksums,
    file_kinds,
    first_samples,
    npy_header,
    other_formats,
    tensor_files,
    zip_members,
)
from fno_telemetry.wording import format_number


@dataclass(frozen=True, eq=False)  # tensors do not compare to one truth value
class Samples:
    """The samples that a model is run on, and what they were in the file."""

    values: torch.Tensor  # (N, C, *S), float32, or complex64 where that was allowed
    path: str
    key: str | None  # None for a file that holds one array without a name
    stored_shape: tuple[int, ...]
    stored_dtype: str
    axes: str  # one letter per stored axis, as used
    warnings: tuple[str, ...]
    checksums: str  # "correct", or "not checked: …"


@dataclass(frozen=True)
class ArrayUse:
    """What an array is read for, as warnings call it, and the option that names it, as errors do."""

    name: str = "input"
    option: str = "key"


@dataclass(frozen=True)
class _Request:
    path: str
    key: str | None
    axes: str | None
    max_samples: int
    allow_complex: bool
    use: ArrayUse
    like: str | None


@dataclass(frozen=True)
class _Stored:
    """An array as it is in the file."""

    key: str | None
    shape: tuple[int, ...]
    dtype: str
    marks: tuple[str, ...]
    checksums: str


def read_samples(
    path: str | os.PathLike[str],
    *,
    key: str | None = None,
    axes: str | None = None,
    max_samples: int = 8,
    allow_complex: bool = False,
    use: ArrayUse = ArrayUse(),
    like: str | None = None,
) -> Samples:
    """Read the first samples of an array, at the cost of memory of those samples.

    The kind of file is told by its content. `key` names an array in an archive (default `diffraction`, else
    `diff3d`; `a.b` leads into dicts and lists of a .pt file); no other array is read. `axes` gives one of N,
    C, D, H, W, L, T per stored axis (default NHW and NHWC); without N the array is one sample, without C a
    channel axis of size 1 is added, and T counts as space. Arrays of up to 256 MB in archives are read to
    their end for their checksum; of larger ones that are not compressed, only the samples. A file with fewer
    samples gives those it has. Integers and other floats become float32; complex numbers become complex64, if
    allowed. `like` is the order of another array, which an array of as many axes has too.

    Raises InputError for a file, and OptionError for an option, that cannot be used: one line each.
    """
    name = os.fspath(path)
    if "\0" in name:
        raise InputError(f"{name!a}: is not a path: it holds a null character; check it.")
    if max_samples < 1:
        raise OptionError(f"`max_samples` {max_samples} for {name} reads nothing; give 1 or more.")
    order = None if axes is None else axis_orders.check_order(axes, name)
    request = _Request(name, key, order, max_samples, allow_complex, use, like)
    try:
        kind, size = file_kinds.recognise(name)
        if kind == "pickle":
            return _from_tensors(request, mapped=False)
        with Path(name).open("rb", buffering=0) as file:
            return _from_npy(request, file, size) if kind == "npy" else _from_zip(request, file, size)
    except FileNotFoundError as cause:
        raise InputError(f"{name}: there is no such file; check the path.") from cause
    except OSError as cause:
        reason = cause.strerror or str(cause)
        raise InputError(f"{name}: cannot be read ({reason}); check the path and its permissions.") from cause


def split_batches(values: torch.Tensor, batch_size: int) -> Iterator[torch.Tensor]:
    """Views of the samples in order, every sample in exactly one; the last may be smaller."""
    if batch_size < 1:
        raise OptionError(f"`batch_size` {batch_size} runs nothing; give 1 or more.")
    return iter(torch.split(values, min(batch_size, max(1, len(values)))))


def _from_npy(request: _Request, file: IO[bytes], size: int) -> Samples:
    path = request.path
    if request.key is not None:
        raise InputError(
            f"{path}: holds one array without a name; leave `{request.use.option}` {request.key!a} out."
        )
    header = npy_header.read_header(file, size, path)
    order, axis, count = _plan(request, header.shape, header.dtype.kind == "c", path)
    source = first_samples.ValueBytes(file, header.data_bytes, jumps=True)
    try:
        values, marks = first_samples.read_first(source, header, axis, count, path)
    except EOFError as cause:
        raise InputError(
            f"{path}: ends too early; is it still being written? Copy or save it again."
        ) from cause
    stored = _Stored(None, header.shape, str(header.dtype), marks, checksums.NOT_STORED)
    return _finish(request, stored, torch.from_numpy(values), order)


def _from_zip(request: _Request, file: IO[bytes], size: int) -> Samples:
    path = request.path
    with zip_members.open_archive(file, path) as archive:
        if zip_members.is_torch_archive(archive):
            tensor_files.check_archive(archive, path)
            return _from_tensors(request, mapped=True)
        if (store := other_formats.recognise_members(archive.namelist())) is not None:
            raise InputError(f"{path}: is {store.name}; {store.describe_reading(path)}.")
        known = checksums.use_checksums(archive)
        keys, option = zip_members.array_keys(archive), request.use.option
        key = zip_members.choose_key(keys, request.key, path, option)
        where = _label(path, key)
        member = archive.getinfo(f"{key}.npy")
        zip_members.check_member(member, size, where)
        with zip_members.damage_named(where), archive.open(member) as stream:
            header = npy_header.read_header(stream, member.file_size, where)
            order, axis, count = _plan(request, header.shape, header.dtype.kind == "c", where)
            partly = axis is not None and count < header.shape[axis]
            with zip_members.member_values(file, member, stream, header, partly=partly) as source:
                values, marks = first_samples.read_first(source, header, axis, count, where)
    if known == checksums.CORRECT and not source.is_finished:
        known = checksums.TOO_LARGE
    stored = _Stored(key, header.shape, str(header.dtype), marks, known)
    return _finish(request, stored, torch.from_numpy(values), order)


def _from_tensors(request: _Request, *, mapped: bool) -> Samples:
    tensor, key, known = tensor_files.load_tensor(
        request.path, request.key, mapped=mapped, option=request.use.option
    )
    where = _label(request.path, key)
    tensor_files.check_tensor(tensor, where)
    shape = tuple(tensor.shape)
    order, axis, count = _plan(request, shape, tensor.is_complex(), where)
    values, marks = tensor_files.first_of(tensor, axis, count, where)
    stored = _Stored(key, shape, str(tensor.dtype).removeprefix("torch."), marks, known)
    return _finish(request, stored, values, order)


def _label(path: str, key: str | None) -> str:
    return path if key is None else f"{path}, array {key!a}"


def _plan(
    request: _Request, shape: tuple[int, ...], is_complex: bool, where: str
) -> tuple[str, int | None, int]:
    """The axis order, the position of the sample axis and how many samples to read."""
    if is_complex and not request.allow_complex:
        raise InputError(
            f"{where}: holds complex numbers, but a model of real fields is run; "
            f"save what it takes, for example the amplitude numpy.abs(array)."
        )
    like = request.like if len(request.like or "") == len(shape) else None
    order = axis_orders.choose_order(shape, request.axes or like, where)
    axis = axis_orders.sample_axis(order)
    return order, axis, 1 if axis is None else min(request.max_samples, shape[axis])


def _finish(request: _Request, stored: _Stored, values: torch.Tensor, order: str) -> Samples:
    arranged = axis_orders.arrange(values, order)
    return Samples(
        arranged,
        request.path,
        stored.key,
        stored.shape,
        stored.dtype,
        order,
        (*_name_marks(stored.marks, request.use), *_doubts(arranged, request.use.name)),
        stored.checksums,
    )


def _name_marks(marks: tuple[str, ...], use: ArrayUse) -> Iterator[str]:
    """Say of which array the marks are, unless it is the only one."""
    yield from (mark if use == ArrayUse() else f"the {use.name}: {mark}" for mark in marks)


def _doubts(values: torch.Tensor, name: str) -> Iterator[str]:
    """What is likely not meant in the samples that were read; paths stay out, for reports are shared."""
    nans, infinities = int(torch.isnan(values).sum()), int(torch.isinf(values).sum())
    if nans or infinities:
        held = " and ".join(
            f"{count} {what}" for count, what in ((nans, "NaN"), (infinities, "infinite")) if count
        )
        yield f"the {name} holds {held} among the {values.numel()} values read"
        return
    first = values.flatten()[0]
    if not bool(values.any()):
        yield f"all {values.numel()} {name} values read are zero"
    elif values.numel() > 1 and bool((values == first).all()):
        yield f"all {values.numel()} {name} values read are equal ({format_number(first.item(), digits=6)})"
