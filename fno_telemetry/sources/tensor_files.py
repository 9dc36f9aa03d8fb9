"""Tensors from a file that torch.save wrote, without trusting what is pickled in it."""

import pickle
import warnings
import zipfile
from collections.abc import Mapping

import torch

from fno_telemetry.errors import InputError
from fno_telemetry.sources.first_samples import refuse_overflow
from fno_telemetry.sources.zip_members import choose_key

_CURE = "save the tensor alone with torch.save(tensor, path)"


def check_archive(archive: zipfile.ZipFile, path: str) -> None:
    """Refuse archives whose mapped bytes would not be the numbers."""
    if any(name.endswith("constants.pkl") for name in archive.namelist()):
        raise InputError(f"{path}: holds a TorchScript program, not tensors; {_CURE}.")
    if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
        raise InputError(
            f"{path}: was compressed after torch.save wrote it, so it cannot be mapped; {_CURE}."
        )


def load_tensor(path: str, key: str | None, *, mapped: bool) -> tuple[torch.Tensor, str | None]:
    """The tensor of this key, or the only one there is, and its key (None for a bare tensor).

    Only torch's own safe unpickler is used. A mapped tensor costs no memory until its values are read; files
    from before torch 1.6 cannot be mapped and are read whole.
    """
    try:
        with warnings.catch_warnings():
            # torch warns of foreign pickles at length; the error below says it in one line.
            warnings.simplefilter("ignore")
            held = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except OSError:
        raise
    except pickle.UnpicklingError as cause:
        raise InputError(
            f"{path}: holds Python objects besides tensors, and unpickling those could run code; {_CURE}."
        ) from cause
    except Exception as cause:  # a hostile pickle chooses what the unpickler raises
        raise InputError(
            f"{path}: cannot be read as tensors, so it is damaged or foreign; {_CURE}."
        ) from cause
    if isinstance(held, torch.Tensor):
        if key is not None:
            raise InputError(f"{path}: holds one tensor without a name; leave `key` {key!a} out.")
        return held, None
    if not isinstance(held, Mapping):
        raise InputError(
            f"{path}: holds a {type(held).__name__}, not a tensor or a dict of tensors; {_CURE}."
        )
    tensors = {str(name): value for name, value in held.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise InputError(f"{path}: holds a dict without tensors; {_CURE}.")
    chosen = choose_key(tensors, key, path)
    return tensors[chosen], chosen


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


def first_of(tensor: torch.Tensor, axis: int | None, count: int, where: str) -> torch.Tensor:
    """The first `count` entries along `axis` (all, if None), float32 or complex64, apart from the file."""
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
    return single
