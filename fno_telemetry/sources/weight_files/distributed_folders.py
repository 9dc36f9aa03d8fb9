"""Folders that `torch.distributed.checkpoint` writes: tensors in pieces, put together in one process.

Torch's own reader unpickles the metadata and all that is no tensor; this one runs nothing of either.
"""

import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fno_telemetry.errors import CheckpointError
from fno_telemetry.sources.checksums import CORRECT, NOT_STORED
from fno_telemetry.sources.pickle_reading import read_pickle
from fno_telemetry.sources.pickled_objects import Answer, PickleRefused
from fno_telemetry.sources.weight_files.locations import METADATA, is_file_name
from fno_telemetry.sources.weight_files.torch_bytes import read_torch_stream

_LONGEST_METADATA = 256 << 20  # bytes
_LONGEST_VALUE = 1 << 20  # bytes of an entry that is no tensor
_DEEPEST = 32  # keys inside keys


class _Record:
    """Replaces an object of the metadata: the name of its class, and its attributes."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.state: dict[str, Any] = {}

    def take_state(self, state: object) -> None:
        """Take the attributes."""
        self.state = state if isinstance(state, dict) else {}


def _answer(kind: str) -> Answer:
    return Answer(lambda *_: _Record(kind))


_METADATA_KINDS = ("Metadata", "MetadataIndex", "TensorStorageMetadata", "ChunkStorageMetadata")
_NAMES = {
    **{f"torch.distributed.checkpoint.metadata.{kind}": _answer(kind) for kind in _METADATA_KINDS},
    "torch.distributed.checkpoint.filesystem._StorageInfo": _answer("_StorageInfo"),
    "torch.Size": Answer(lambda numbers=(): _size(numbers)),
}
"""Answers to the names in the metadata; any other object is not needed."""


@dataclass(frozen=True)
class _Piece:
    """A part of a tensor, or a whole value, and where its bytes are."""

    offsets: tuple[int, ...] | None  # None for what is no tensor
    file: str
    start: int
    length: int


@dataclass(frozen=True)
class _Entry:
    """One entry of the checkpoint: the keys that lead to it, and its pieces."""

    keys: tuple[str, ...]
    shape: tuple[int, ...] | None  # None for what is no tensor
    pieces: tuple[_Piece, ...]


@dataclass(frozen=True)
class DistributedFolder:
    """What the metadata of a folder says is in it."""

    folder: Path
    entries: tuple[_Entry, ...]

    @property
    def files(self) -> list[Path]:
        """The metadata and the files that it names."""
        names = {piece.file for entry in self.entries for piece in entry.pieces}
        return [self.folder / name for name in (METADATA, *sorted(names))]

    def read(
        self, wanted: Callable[[str], bool], values: Callable[[str], bool]
    ) -> tuple[dict[str, Any], str]:
        """Return the entries as nested dicts, and what the checksums of their pieces say.

        Tensors are read below wanted keys, and values by their last key; None replaces every other value.
        CheckpointError, one line, for what is damaged or transformed.
        """
        content: dict[str, Any] = {}
        found: set[str] = set()
        for entry in self.entries:
            if not all(map(wanted, entry.keys)):
                continue
            value: object = None
            if entry.shape is not None:
                value = self._join(entry, entry.shape, found)
            elif values(entry.keys[-1]) and entry.pieces[0].length <= _LONGEST_VALUE:
                value = self._read_value(entry.pieces[0])
            _put(content, entry.keys, value)
        return content, CORRECT if found == {CORRECT} else NOT_STORED

    def _join(self, entry: _Entry, shape: tuple[int, ...], checksums: set[str]) -> Tensor:
        name = ".".join(entry.keys)
        whole: Tensor | None = None
        filled = 0
        pieces = {piece.offsets: piece for piece in entry.pieces}.values()
        for piece in pieces:
            part, checksum = self._read_piece(piece)
            checksums.add(checksum)
            if not isinstance(part, Tensor) or part.layout is not torch.strided or part.is_meta:
                raise self._error(f"{name} is no dense tensor in it")
            # A tensor may claim more elements than are stored.
            if part.numel() * part.element_size() > piece.length:
                raise self._error(f"{name} claims more numbers than are stored")
            if not len(shape) == len(piece.offsets or ()) == part.dim():
                raise self._error(f"a piece of {name} has other axes")
            if whole is None:
                stored = sum(one.length for one in pieces)
                if math.prod(shape) * part.element_size() > stored:
                    raise self._error(f"pieces of {name} are missing")
                try:
                    whole = torch.empty(shape, dtype=part.dtype)
                except RuntimeError as error:
                    raise self._error(f"{name} has an impossible shape") from error
            place = whole
            for axis, (offset, size) in enumerate(zip(piece.offsets or (), part.shape, strict=True)):
                if not 0 <= offset <= shape[axis] - size:
                    raise self._error(f"a piece of {name} lies outside of it")
                place = place.narrow(axis, offset, size)
            place.copy_(part)
            filled += part.numel()
        if whole is None or filled != whole.numel():
            raise self._error(f"pieces of {name} are missing")
        return whole

    def _read_value(self, piece: _Piece) -> object:
        try:
            return self._read_piece(piece)[0]
        except CheckpointError:
            return None  # not weights: nothing of it may run, and nothing of it is needed

    def _read_piece(self, piece: _Piece) -> tuple[object, str]:
        path = self.folder / piece.file
        if not path.is_file():
            raise self._error(f"{piece.file} is no file")
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(piece.start)
                data = file.read(min(piece.length, size))
        except (OSError, ValueError) as error:
            raise self._error(f"{piece.file} cannot be read ({type(error).__name__})") from error
        if len(data) != piece.length:
            raise self._error(f"{piece.file} is cut short")
        return read_torch_stream(io.BytesIO(data), str(path))

    def _error(self, reason: str) -> CheckpointError:
        return _unusable(self.folder, reason)


def open_distributed(folder: Path) -> DistributedFolder:
    """Return what the metadata of a folder says; CheckpointError, one line, when it cannot be used."""
    path = folder / METADATA
    try:
        if path.stat().st_size > _LONGEST_METADATA:
            raise ValueError("they are larger than those of any network")
        with path.open("rb") as file:
            held = read_pickle(file, _NAMES, _refuse_storage)
        entries = tuple(_entries(_state(held, "Metadata")))
        _refuse_overlaps(piece for entry in entries for piece in entry.pieces)
        return DistributedFolder(folder, entries)
    except OSError as error:
        raise _unusable(folder, f"{METADATA} cannot be read ({error.strerror})") from error
    except Exception as error:  # damaged metadata make the reader raise anything
        raise _unusable(folder, f"{METADATA}: {' '.join(str(error).split())[:200]}") from error


def _refuse_storage(_: object) -> object:
    raise PickleRefused("it refers to something outside of it")


def _unusable(folder: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{folder}: this checkpoint of torch.distributed.checkpoint cannot be read: {reason}. Copy or save "
        "it again, or convert it where it was saved: python -m torch.distributed.checkpoint.format_utils "
        f"dcp_to_torch {folder} model.pt"
    )


def _entries(metadata: Mapping[str, Any]) -> Iterator[_Entry]:
    stored: dict[str, list[_Piece]] = {}
    for index, place in metadata["storage_data"].items():
        where, what = _state(index, "MetadataIndex"), _state(place, "_StorageInfo")
        if what.get("transform_descriptors"):
            raise ValueError(f"its tensors are stored in another form ({what['transform_descriptors']})")
        name = what["relative_path"]
        if not is_file_name(name):
            raise ValueError(f"it names {name!r:.60}, which is not a file in the folder")
        start, length = what["offset"], what["length"]
        if not (isinstance(start, int) and isinstance(length, int) and start >= 0 and length >= 0):
            raise ValueError(f"it gives no place for {where['fqn']}")
        offsets = where.get("offset")
        piece = _Piece(None if offsets is None else _size(offsets), name, start, length)
        stored.setdefault(where["fqn"], []).append(piece)
    paths = metadata.get("planner_data")
    for name, kind in metadata["state_dict_metadata"].items():
        # The planner's data say which keys a name was made of; without them the name is the key.
        keys = paths.get(name, (name,)) if isinstance(paths, dict) else (name,)
        keys = tuple(str(key) for key in keys if isinstance(key, str | int))
        if not 0 < len(keys) <= _DEEPEST or not stored.get(name):
            raise ValueError(f"it does not say where {name} is")
        size = kind.state.get("size") if isinstance(kind, _Record) else None
        yield _Entry(keys, None if size is None else _size(size), tuple(stored[name]))


def _refuse_overlaps(pieces: Iterable[_Piece]) -> None:
    """Raise ValueError where pieces share bytes: few bytes could stand for many tensors."""
    ends: dict[str, int] = {}
    for piece in sorted(pieces, key=lambda piece: (piece.start, piece.length)):
        if piece.length and piece.start < ends.get(piece.file, 0):
            raise ValueError(f"two of its tensors are at the same place in {piece.file}")
        ends[piece.file] = max(piece.start + piece.length, ends.get(piece.file, 0))


def _state(made: object, kind: str) -> dict[str, Any]:
    """Return the attributes of an object that is to be of this class."""
    if not isinstance(made, _Record) or made.kind != kind:
        raise ValueError(f"it holds no {kind}")
    return made.state


def _size(numbers: object) -> tuple[int, ...]:
    """Return the numbers of a torch.Size."""
    if not isinstance(numbers, tuple) or not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError("it has a size that is none")
    return numbers


def _put(content: dict[str, Any], keys: tuple[str, ...], value: object) -> None:
    for key in keys[:-1]:
        inner = content.setdefault(key, {})
        if not isinstance(inner, dict):
            return  # a hostile name that runs through a tensor
        content = inner
    content[keys[-1]] = value
