"""Which files a checkpoint consists of: one file, an index and its shards, or a folder."""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

from fno_telemetry.errors import CheckpointError

METADATA = ".metadata"
"""The file by which a folder of `torch.distributed.checkpoint` is known; it says what the others hold."""

INDEX_ENDING = ".index.json"
"""How the name of an index ends: a JSON file that names the shard of each tensor."""

_SHARD = re.compile(r".*-\d+-of-\d+\.(safetensors|bin)")
_INSIDE = "pytorch_model_fsdp_0"  # accelerate keeps the folder of the model in a folder with the optimizer's
_LONGEST_INDEX = 64 << 20  # bytes


@dataclass(frozen=True)
class Location:
    """Where the weights of one checkpoint are."""

    kind: Literal["file", "index", "distributed"]
    main: Path  # the file, the index, or the folder


def find_location(path: str | Path) -> Location:
    """Return where the weights of the checkpoint at `path` are, a file or a folder.

    CheckpointError for a folder that holds none or several, and for a file that is a part of a checkpoint.
    """
    given = Path(path)
    if given.is_dir():
        found = _look_into(given)
        if len(found) == 1:
            return found[0]
        if not found:
            raise CheckpointError(f"{path}: {_describe_folder(given)}")
        names = ", ".join(sorted(one.main.name for one in found))
        raise CheckpointError(
            f"{path}: this folder holds several files of weights: {names}. Name the one that is meant."
        )
    if _is_distributed_part(given):
        raise CheckpointError(
            f"{path}: this is one file of a checkpoint of torch.distributed.checkpoint. Name its folder: "
            f"{given.parent}"
        )
    if (index := _find_index_of(given)) is not None:
        raise CheckpointError(
            f"{path}: this file holds only a part of the weights; {index.name} says where the others are. "
            f"Name that: {index}"
        )
    return Location("index" if given.name.endswith(INDEX_ENDING) else "file", given)


def find_whole(path: Path) -> Location | None:
    """Return the checkpoint that a file belongs to, or that a folder holds; None for a folder without one."""
    if path.is_dir():
        found = _look_into(path)
        return found[0] if len(found) == 1 else None
    if _is_distributed_part(path):
        return Location("distributed", path.parent)
    index = _find_index_of(path)
    return Location("file", path) if index is None else Location("index", index)


def read_index(index: Path) -> dict[str, str]:
    """Return the file that holds each tensor, by the tensor's name; CheckpointError for anything else."""
    try:
        if not index.is_file() or index.stat().st_size > _LONGEST_INDEX:
            raise ValueError("it is no file of a usual size")
        held = json.loads(index.read_bytes())
        shards = held["weight_map"]
        if not isinstance(shards, dict) or not shards:
            raise ValueError("its weight_map is empty")
        for shard in shards.values():
            if not is_file_name(shard):
                raise ValueError(f"its weight_map names {shard!r:.60}, which is not a file next to it")
    except FileNotFoundError as error:
        raise CheckpointError(f"{index}: there is no such file. Check the checkpoint's path.") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{index}: this is not an index of weights ({what}). Give the index that was saved with them."
        ) from error
    return shards


def is_file_name(name: object) -> bool:
    """Whether this can be the name of a file in a folder, and leads nowhere else."""
    if not isinstance(name, str) or name in ("", ".", "..") or "\0" in name or "\\" in name:
        return False
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return PurePath(name).name == name


def compute_digest(files: Iterable[Path]) -> str:
    """Return the SHA-256 of the only file, or of the list that `sha256sum` prints for several.

    The list has a line for each file, in order of the names: digest, two spaces, name without its folder.
    """
    digests = {}
    for file in files:
        with file.open("rb") as stream:
            digests[file.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    if len(digests) == 1:
        return next(iter(digests.values()))
    lines = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()


def _look_into(folder: Path) -> list[Location]:
    """Return the checkpoints in a folder, those of the kind that is looked for first."""
    if (folder / METADATA).is_file():
        return [Location("distributed", folder)]
    if (folder / _INSIDE / METADATA).is_file():
        return [Location("distributed", folder / _INSIDE)]
    try:
        names = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError:
        return []
    for ending in (f".safetensors{INDEX_ENDING}", f".bin{INDEX_ENDING}"):
        if found := [path for path in names if path.name.endswith(ending)]:
            return [Location("index", path) for path in found]
    if found := [path for path in names if path.suffix == ".safetensors"]:
        return [Location("file", path) for path in found]
    return [Location("file", path) for path in names if path.name == "pytorch_model.bin"]


def _is_distributed_part(path: Path) -> bool:
    return path.name == METADATA or path.suffix == ".distcp"


def _find_index_of(path: Path) -> Path | None:
    """Return the index that names this file as a shard, if there is one next to it."""
    if not _SHARD.fullmatch(path.name):
        return None
    for index in sorted(path.parent.glob(f"*{INDEX_ENDING}")):
        try:
            shards = read_index(index)
        except CheckpointError:
            continue
        if path.name in shards.values():
            return index
    return None


def _describe_folder(folder: Path) -> str:
    """Say what a folder is that holds no checkpoint that can be read as a whole."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        return f"this is a folder that cannot be read ({error.strerror}). Check its permissions."
    if "saved_model.pb" in names:
        return "this is a TensorFlow SavedModel. Give weights of PyTorch."
    if {"_CHECKPOINT_METADATA", "_METADATA", "manifest.ocdbt"}.intersection(names):
        return "this is an Orbax checkpoint of JAX. Give weights of PyTorch, or an .npz file with the arrays."
    if {"data.pkl", "version"} <= set(names):
        return "this is an unpacked file of torch.save. Give the file itself."
    shown = ", ".join(names[:5]) + (f", … ({len(names)} in all)" if len(names) > 5 else "")
    return f"this is a folder, and it holds {shown or 'nothing'}. Name the checkpoint file in it."
