"""Files of `torch.save` from before torch 1.6: five pickles, and then the bytes of the storages in a row."""

from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from fno_telemetry.sources.pickle_reading import read_pickle
from fno_telemetry.sources.pickled_objects import PickleRefused
from fno_telemetry.sources.tensor_answers import Storage, StorageKind, TensorAnswers

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_LONGEST_LINE = 1 << 16  # bytes
_BLOCK = 1 << 20  # bytes read at once


def read_older_file(path: str) -> object:
    """Return what the file holds. The format has no checksums: a flipped bit changes a number."""
    with Path(path).open("rb") as file:
        return _OlderFile(file, Path(path).stat().st_size).load()


class _OlderFile:
    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._size = file, size
        self._left = size  # bytes that storages may still claim
        self._storages: dict[object, tuple[torch.Tensor, torch.dtype]] = {}  # their bytes

    # These two are what pickletools reads by; a claimed length is not believed.
    def read(self, count: int) -> bytes:
        return self._file.read(min(count, self._size))

    def readline(self) -> bytes:
        return self._file.readline(_LONGEST_LINE)

    def load(self) -> object:
        """Return the content, after its storages are filled."""
        if self._pickle({}) != _MAGIC:
            raise PickleRefused("it is a plain pickle, not a file of torch.save")
        if self._pickle({}) != _VERSION:
            raise PickleRefused("it is of an unknown version")
        self._pickle({})  # the machine that it was written on
        content = self._pickle(TensorAnswers(self._size).by_name())
        keys: Any = self._pickle({})
        if set(self._storages) != set(keys):
            raise PickleRefused("it has other storages than its tensors need")
        for key in keys:
            self._fill(*self._storages[key])
        return content

    def _pickle(self, names: Mapping[str, object]) -> object:
        return read_pickle(self, names, self._refer)

    def _refer(self, reference: Any) -> object:
        """Return the storage that a pickle refers to, as yet without its numbers."""
        word, kind, *rest = reference
        if word == "module":  # the class of a network, with its source, which is not looked at
            return kind
        key, _, count, view = rest
        if word != "storage" or not isinstance(kind, StorageKind) or type(count) is not int:
            raise PickleRefused("it refers to something that is no storage")
        if key not in self._storages:
            claimed = count * kind.dtype.itemsize
            if not 0 <= claimed <= self._left:
                raise PickleRefused(f"a storage claims {claimed} bytes, more than the file has")
            self._left -= claimed
            self._storages[key] = torch.zeros(claimed, dtype=torch.uint8), kind.dtype
        content = self._storages[key][0].untyped_storage()
        if view is not None:
            start, length = view[1] * kind.dtype.itemsize, view[2] * kind.dtype.itemsize
            content = content[start : start + length]
        return Storage(content, kind.dtype)

    def _fill(self, content: torch.Tensor, dtype: torch.dtype) -> None:
        """Read the next storage: its number of elements, and their bytes."""
        count = int.from_bytes(self._file.read(8), "little")
        if count * dtype.itemsize != content.numel():
            raise PickleRefused(f"a storage of {content.numel()} bytes is followed by {count} {dtype}")
        view, filled = content.numpy(), 0
        while filled < len(view):
            block = self._file.read(min(_BLOCK, len(view) - filled))
            if not block:
                raise EOFError("the data end too early")
            view[filled : filled + len(block)] = np.frombuffer(block, np.uint8)
            filled += len(block)
