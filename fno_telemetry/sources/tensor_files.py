"""Tensors from a file that torch.save wrote: it is read as data, and nothing pickled in it is run."""

import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from fno_telemetry.errors import InputError
from fno_telemetry.sources.checksums import NOT_STORED
from fno_telemetry.sources.first_samples import describe_marks, refuse_overflow
from fno_telemetry.sources.older_torch_files import read_older_file
from fno_telemetry.sources.pickled_objects import PickleRefused, StandIn
from fno_telemetry.sources.stored_arrays import StoredArray
from fno_telemetry.sources.torch_archives import open_archive
from fno_telemetry.sources.zip_members import DEFAULT_KEYS, choose_key

_CURE = "save the tensor alone with torch.save(tensor, path)"
_DEEPEST = 8  # dicts and lists inside each other in which tensors are looked for


def check_archive(archive: zipfile.ZipFile, path: str) -> None:
    """Refuse archives whose mapped bytes would not be the numbers."""
    if any(name.endswith("constants.pkl") for name in archive.namelist()):
        raise InputError(f"{path}: holds a TorchScript program, not tensors; {_CURE}.")
    if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
        raise InputError(
            f"{path}: was compressed after torch.save wrote it, so it cannot be mapped; {_CURE}."
        )


def load_tensor(
    path: str, key: str | None, *, mapped: bool, option: str = "key"
) -> tuple[torch.Tensor, str | None, str]:
    """The tensor of this key, its key (None for a bare tensor), and what the file's checksum says of it.

    A key `a.b` leads into dicts and lists. Objects next to the tensor are stand-ins. A mapped tensor costs no
    memory until its values are read; files from before torch 1.6 cannot be mapped and are read whole. An
    error about the key names the option that gave it.
    """
    try:
        if not mapped:
            return *_choose(read_older_file(path), key, path, option), NOT_STORED
        with open_archive(path) as archive:
            tensor, chosen = _choose(archive.read(mapped=True), key, path, option)
            return tensor, chosen, archive.check(tensor)
    except (OSError, InputError):
        raise
    except PickleRefused as cause:
        raise InputError(f"{path}: is not read: {cause}; {_CURE}.") from cause
    except Exception as cause:  # a damaged file makes the reader raise anything
        seen = " ".join(str(cause).split())[:200] or type(cause).__name__
        raise InputError(
            f"{path}: cannot be read as tensors, it is damaged or foreign ({seen}); {_CURE}."
        ) from cause


def _choose(held: object, key: str | None, path: str, option: str) -> tuple[torch.Tensor, str | None]:
    """The asked tensor of what a file holds, and its key."""
    if isinstance(held, torch.Tensor):
        if key is not None:
            raise InputError(f"{path}: holds one tensor without a name; leave `{option}` {key!a} out.")
        return held, None
    if not isinstance(held, Mapping | list | tuple) or (isinstance(held, StandIn) and not held):
        raise InputError(f"{path}: holds a {_kind(held)}, not a tensor or a dict of tensors; {_CURE}.")
    found: dict[str, object] = {}
    for name, value in _named(held):
        found.setdefault(name, value)
    tensors = {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}
    for wanted in DEFAULT_KEYS if key is None else (key,):
        if wanted in found and wanted not in tensors:
            raise InputError(f"{path}: {wanted!a} is a {_kind(found[wanted])}, not a tensor; {_CURE}.")
    if not tensors:
        raise InputError(f"{path}: holds a {_kind(held)} without tensors; {_CURE}.")
    chosen = choose_key(tensors, key, path, option)
    return tensors[chosen], chosen


def _named(held: Any) -> Iterator[tuple[str, object]]:
    """What is in dicts and lists, by dotted names, those that are the least deep first."""
    level: list[tuple[str, Any]] = [("", held)]
    for _ in range(_DEEPEST):
        inside = [
            (f"{prefix}{name}", value)
            for prefix, holder in level
            for name, value in (holder.items() if isinstance(holder, Mapping) else enumerate(holder))
        ]
        yield from inside
        level = [(f"{name}.", value) for name, value in inside if isinstance(value, Mapping | list | tuple)]


def _kind(value: object) -> str:
    return ascii(value.name)[1:-1][:100] if isinstance(value, StandIn | StoredArray) else type(value).__name__


def check_tensor(tensor: torch.Tensor, where: str) -> None:
    """Refuse what holds no plain numbers, or claims more of them than are stored."""
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_nested or tensor.is_meta:
        raise InputError(
            f"{where}: is not a plain dense tensor; save tensor.to_dense() or a copy with values."
        )
    if tensor.dtype is torch.bool:
        raise InputError(f"{where}: holds booleans; save the numbers as one plain float32 tensor.")
    held = tensor.untyped_storage().nbytes()
    if tensor.numel() * tensor.element_size() > held:
        raise InputError(
            f"{where}: shape {tuple(tensor.shape)} claims {tensor.numel()} numbers, but only {held} bytes "
            f"are stored; save a copy of its own with torch.save(tensor.contiguous(), path)."
        )


def first_of(
    tensor: torch.Tensor, axis: int | None, count: int, where: str
) -> tuple[torch.Tensor, tuple[str, ...]]:
    """The first `count` entries along `axis` (all, if None), float32 or complex64, apart from the file.

    With them, which integers are likely no values.
    """
    part = tensor.detach() if axis is None else tensor.detach().narrow(axis, 0, count)
    target = torch.complex64 if part.is_complex() else torch.float32
    try:
        # A copy even when the type is right: what is returned must not keep the file mapped.
        single = part.resolve_conj().resolve_neg().to(target, copy=True)
        overflown = 0
        if part.dtype in (torch.float64, torch.complex128):
            overflown = int((torch.isinf(single) & torch.isfinite(part)).sum())
    except (RuntimeError, NotImplementedError, MemoryError) as cause:
        raise InputError(
            f"{where}: {count} samples of {part.dtype} cannot be made float32 ({cause}); "
            f"save them as float32, or lower `max_samples`."
        ) from cause
    refuse_overflow(overflown, str(part.dtype).removeprefix("torch."), where)
    whole = not (part.is_floating_point() or part.is_complex())
    return single, describe_marks(part.numpy()) if whole else ()
