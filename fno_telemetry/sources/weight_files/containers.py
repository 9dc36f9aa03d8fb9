"""What a checkpoint's files hold, whatever container the training program used."""

import json
import pickle
import stat
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fno_telemetry.errors import CheckpointError
from fno_telemetry.sources.checksums import CORRECT, NOT_STORED, describe_checksums
from fno_telemetry.sources.steps import is_step_key
from fno_telemetry.sources.unpickling import make_working_folder_importable, read_torch_file
from fno_telemetry.sources.weight_files import foreign_files, physicsnemo_archives
from fno_telemetry.sources.weight_files.array_files import has_arrays, read_arrays
from fno_telemetry.sources.weight_files.distributed_folders import open_distributed
from fno_telemetry.sources.weight_files.locations import Location, read_index
from fno_telemetry.sources.weight_files.safetensors_files import is_safetensors, read_safetensors
from fno_telemetry.sources.weight_sets import NOT_WEIGHTS

_HEAD = 1024  # bytes that tell what a file is
_TAR = slice(257, 262)  # where a tar archive says so
_LONGEST_STATE = 64 << 20  # bytes of trainer_state.json, which has a line for each logged step


@dataclass(frozen=True)
class Contents:
    """What `torch.save` would have got, what a trainer keeps next to it, and the files of both."""

    held: object
    training_state: Mapping[str, object] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    checksums: str = NOT_STORED  # what they say of the weights


def read_contents(location: Location, *, trust: bool = False) -> Contents:
    """Return what is at a location; CheckpointError, one line, when it cannot be read.

    Nothing of it is run unless `trust` is given, which counts for files of `torch.save` and pickles.
    """
    main = location.main
    if location.kind == "distributed":
        folder = open_distributed(main)
        held, checksums = folder.read(lambda key: not NOT_WEIGHTS.fullmatch(key), is_step_key)
        return Contents(held, _read_lightning_state(main, trust), tuple(folder.files), checksums)
    if location.kind == "index":
        shards = sorted({main.parent / name for name in read_index(main).values()})
        parts = [_read_file(shard, trust) for shard in shards]
        merged: dict[Any, Any] = {}
        for shard, part in zip(shards, parts, strict=True):
            if not isinstance(part.held, Mapping):
                raise CheckpointError(f"{shard}: this shard holds no tensors by name. Save it again.")
            merged |= part.held
        checksums = CORRECT if {part.checksums for part in parts} == {CORRECT} else NOT_STORED
        return Contents(merged, _read_trainer_state(main.parent), (main, *shards), checksums)
    return _read_file(main, trust)


def _read_file(path: Path, trust: bool) -> Contents:
    head, size = _read_head(path)
    name = str(path)
    if is_safetensors(head, size) or path.suffix == ".safetensors":
        tensors, metadata = read_safetensors(path)
        return Contents(tensors, metadata | _read_trainer_state(path.parent), (path,))
    if head.startswith(b"PK\x03\x04"):
        held, checksums = _read_zip(path, trust)
        return Contents(held, _read_trainer_state_of(path), (path,), checksums)
    if head[_TAR] == b"ustar":
        held, checksums = physicsnemo_archives.read_tar(path, trust=trust)
        return Contents(held, {}, (path,), checksums)
    if (reason := foreign_files.describe_file(name, head)) is not None:
        raise CheckpointError(reason)
    if foreign_files.is_plain_pickle(head):
        if not trust:
            raise CheckpointError(foreign_files.describe_pickle(name))
        return Contents(_read_trusted_pickle(path), {}, (path,))
    return Contents(read_torch_file(name, trust=trust), _read_trainer_state_of(path), (path,))


def _read_head(path: Path) -> tuple[bytes, int]:
    """Return the first bytes of a file and its size; `read_torch_file` has words for what has none."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            read_torch_file(str(path))
        with path.open("rb") as file:
            return file.read(_HEAD), status.st_size
    except OSError:
        read_torch_file(str(path))
        raise


def _read_zip(path: Path, trust: bool) -> tuple[object, str]:
    name = str(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        names = []  # `read_torch_file` says how it is damaged
    if not any(entry.rpartition("/")[2] == "data.pkl" for entry in names):
        if physicsnemo_archives.MEMBER in names:
            return physicsnemo_archives.read_zip(path, trust=trust)
        if has_arrays(names):
            return read_arrays(path), describe_checksums(name)
        if (reason := foreign_files.describe_archive(name, names)) is not None:
            raise CheckpointError(reason)
    return read_torch_file(name, trust=trust), describe_checksums(name)


def _read_trusted_pickle(path: Path) -> object:
    """Unpickle a file that torch.save did not write; the caller has said that it may run code."""
    make_working_folder_importable()
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")
            return pickle.load(file)  # noqa: S301  `trust` was given
    except (Exception, SystemExit) as error:  # the file may hold, and run, anything
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: unpickling it failed ({type(error).__name__}: {reason}). Install what it needs, or "
            "save the state_dict() alone, by torch.save."
        ) from error


def _read_trainer_state_of(path: Path) -> dict[str, object]:
    return _read_trainer_state(path.parent) if path.name == "pytorch_model.bin" else {}


def _read_trainer_state(folder: Path) -> dict[str, object]:
    """Return what transformers keeps next to the weights: the step, not in the file of the weights."""
    path = folder / "trainer_state.json"
    try:
        if path.is_file() and path.stat().st_size <= _LONGEST_STATE:
            return {"trainer_state": json.loads(path.read_bytes())}
    except (OSError, ValueError, RecursionError):
        pass  # it is no part of the weights
    return {}


def _read_lightning_state(folder: Path, trust: bool) -> dict[str, object]:
    """Return what Lightning keeps next to a distributed checkpoint: all but the weights."""
    path = folder / "meta.pt"
    try:
        held = read_torch_file(str(path), trust=trust) if path.is_file() else {}
    except CheckpointError:
        return {}  # it is no part of the weights
    return {str(key): value for key, value in held.items()} if isinstance(held, Mapping) else {}
