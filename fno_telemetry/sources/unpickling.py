"""Files written by `torch.save`, read without running anything that is in them.

A pickle may name any function and have it called. Here it is read as data: tensors are rebuilt over their
storages, all else is plain values and stand-ins that do nothing. Only weights can need the caller's trust.
"""

import os
import stat
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from fno_telemetry.errors import CheckpointError
from fno_telemetry.sources.checksums import CORRECT, use_checksums
from fno_telemetry.sources.older_torch_files import read_older_file
from fno_telemetry.sources.pickled_objects import Name, PickleRefused, StandIn
from fno_telemetry.sources.torch_archives import open_archive

_ZIP = b"PK\x03\x04"
_SHARDED = "torch.distributed.tensor.DTensor"
_LISTED = 3  # names in a message
_DEEPEST = 8  # mappings inside mappings in which weights are looked for


def read_torch_file(path: str, *, trust: bool = False) -> object:
    """Return what `torch.save` wrote to `path`, tensors on the CPU.

    Nothing in the file is run unless `trust` is given: then it is unpickled in full, whatever it does.
    Without, there are stand-ins for all objects but tensors and plain values. Checksums are compared.
    CheckpointError, one line, when there is no such file, or it is of another kind, damaged, or needs trust.
    """
    _check_kind(path)
    with warnings.catch_warnings():
        # Torch warns about old pickle protocols and storage classes, which no user of a file can change.
        warnings.simplefilter("ignore")
        return _read_trusted(path) if trust else _read_safely(path)


def make_working_folder_importable() -> None:
    """Let modules in the working folder be imported, as under `python -m` but not in installed commands."""
    folder = str(Path.cwd())
    if "" not in sys.path and folder not in sys.path:
        sys.path.insert(0, folder)


def describe_closed(content: object) -> str:
    """Say what to do about weights in objects that stand-ins replace; nothing where there are none.

    Such objects are whole networks, and tensors of classes that are not known here.
    """
    if isinstance(content, Name):
        names = [content.path]
    elif isinstance(content, StandIn) and not content:
        names = [content.name]
    else:
        names = list(dict.fromkeys(_closed(content, _DEEPEST)))
    if not names:
        return ""
    if _SHARDED in names:
        return (
            "it holds one process's parts of sharded tensors (DTensor). Save whole ones, by "
            "get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))."
        )
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    called = ", ".join(repr(name)[:100] for name in names[:_LISTED])
    return (
        f"reading what is in its objects would call {called}{more}, which may run any code. If you trust the "
        "file's maker, add `trust=True`; better, save the state_dict() alone."
    )


def _closed(content: object, depth: int) -> Iterator[str]:
    if isinstance(content, StandIn) and content.holds_tensors:
        yield content.name
    elif isinstance(content, Mapping) and depth:
        for value in content.values():
            yield from _closed(value, depth - 1)


def _is_archive(path: str) -> bool:
    with Path(path).open("rb") as file:
        return file.read(len(_ZIP)) == _ZIP


def _read_safely(path: str) -> object:
    """Read a zip archive or an older file as data."""
    try:
        if not _is_archive(path):
            return read_older_file(path)
        with open_archive(path) as archive:
            return archive.read()
    except Exception as error:  # a damaged file makes the reader raise anything
        raise _damaged(path, error) from error


def _read_trusted(path: str) -> object:
    """Unpickle everything; the caller has said that the file may run code."""
    make_working_folder_importable()
    try:
        if _is_archive(path):
            with zipfile.ZipFile(path) as archive:
                if use_checksums(archive) == CORRECT and (wrong := archive.testzip()) is not None:
                    raise zipfile.BadZipFile(f"Bad CRC-32 for file {wrong!r}")
        return torch.load(path, map_location="cpu", weights_only=False)
    except ModuleNotFoundError as error:
        raise CheckpointError(
            f"{path}: reading it needs the module {error.name!r}, which is not installed. Install it, or run "
            "from the folder that holds it."
        ) from error
    except (Exception, SystemExit) as error:  # the file may hold, and run, anything
        raise _damaged(path, error) from error


def _damaged(path: str, error: BaseException) -> CheckpointError:
    """Return the error for a file that begins like a checkpoint and cannot be read to its end."""
    reason = " ".join(str(error).split())[:200] or "no reason given"
    if isinstance(error, PickleRefused):
        return CheckpointError(
            f"{path}: its pickle is not read: {reason}. Save its state_dict() alone, with torch.save."
        )
    return CheckpointError(
        f"{path}: the file is truncated or damaged, or its pickle is not of the kind torch.save writes "
        f"({type(error).__name__}: {reason}). Copy or save it again with torch.save."
    )


def _check_kind(path: str) -> None:
    """Raise CheckpointError for a path that holds no file of `torch.save`."""
    try:
        status = Path(path).stat()
        if stat.S_ISDIR(status.st_mode):
            raise CheckpointError(f"{path}: this is a folder. Name the checkpoint file in it.")
        if not stat.S_ISREG(status.st_mode):
            # Opening a pipe would wait for ever.
            raise CheckpointError(f"{path}: this is not a regular file. Name a checkpoint file.")
        with Path(path).open("rb") as file:
            head = file.read(64)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: there is no such file. Check the checkpoint's path.") from error
    except OSError as error:
        raise CheckpointError(
            f"{path}: the file cannot be read ({os.strerror(error.errno or 0)})."
        ) from error
    if not head:
        raise CheckpointError(f"{path}: the file is empty. Copy or save the checkpoint again.")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path}: this is a Git LFS pointer, not the weights. Run: git lfs pull")
    if head.startswith(_ZIP):
        _check_archive(path)
    elif not head.startswith(b"\x80"):
        raise CheckpointError(
            f"{path}: this is not a PyTorch checkpoint (it begins with {head[:8]!r}). Give one of torch.save."
        )


def _check_archive(path: str) -> None:
    """Raise CheckpointError for a zip archive that holds no pickle of `torch.save`."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _damaged(path, error) from error
    if "constants.pkl" in names:
        raise CheckpointError(
            f"{path}: this is a TorchScript program, whose modules cannot be captured. Give its weights: "
            "torch.save(torch.jit.load(source).state_dict(), target)"
        )
    if "data.pkl" not in names:
        raise CheckpointError(
            f"{path}: this is a zip archive, but not one that torch.save wrote. Give the checkpoint file."
        )
