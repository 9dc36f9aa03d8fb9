"""The zip archives that `torch.save` writes: a pickle, and a member of its own for each storage."""

import io
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from fno_telemetry.sources import checksums
from fno_telemetry.sources.checksums import CORRECT, TOO_LARGE, use_checksums
from fno_telemetry.sources.pickle_reading import read_pickle
from fno_telemetry.sources.pickled_objects import PickleRefused
from fno_telemetry.sources.tensor_answers import Storage, StorageKind, TensorAnswers
from fno_telemetry.sources.zip_members import find_fault, find_start

_BLOCK = 1 << 20  # bytes read at once
_ALLOWANCE = 1 << 29  # bytes that members may unfold to, beyond the size of the file


class TorchArchive:
    """An open zip archive of `torch.save`."""

    def __init__(self, path: str, file: IO[bytes], archive: zipfile.ZipFile) -> None:
        self._path, self._file, self._archive = path, file, archive
        self._size = Path(path).stat().st_size
        self._left = self._size + _ALLOWANCE
        self._checksums = use_checksums(archive)
        self._folder = next(
            name.removesuffix("data.pkl")
            for name in archive.namelist()
            if name == "data.pkl" or name.endswith("/data.pkl")
        )
        self._storages: dict[str, torch.UntypedStorage] = {}
        self._mapped: torch.UntypedStorage | None = None
        self._members: dict[int, zipfile.ZipInfo] = {}  # of mapped storages, by their place in memory

    def read(self, *, mapped: bool = False) -> object:
        """Return what is in the archive, every member checked by its checksum.

        The numbers of mapped tensors cost no memory until they are used, and are not checked.
        """
        if mapped:
            # Private: nothing is ever written to the file.
            self._mapped = torch.UntypedStorage.from_file(self._path, False, self._size)  # type: ignore[assignment]
        order = f"{self._folder}byteorder"
        is_big = order in self._archive.namelist() and self._read(order).numpy().tobytes() == b"big"
        self._swaps = is_big != (sys.byteorder == "big")
        pickle = io.BytesIO(self._read(f"{self._folder}data.pkl").numpy().tobytes())
        return read_pickle(pickle, TensorAnswers(self._size).by_name(), self._load)

    def check(self, tensor: torch.Tensor) -> str:
        """Read the member of a mapped tensor to its end, keeping nothing, and return what its checksum says.

        Members beyond 256 MB are not read for that. zipfile.BadZipFile when it differs.
        """
        member = self._members.get(tensor.untyped_storage().data_ptr())
        if member is not None and self._checksums == CORRECT:
            if member.file_size > checksums.CHECKED:
                return TOO_LARGE
            with self._archive.open(member) as stream:
                while stream.read(_BLOCK):
                    pass
        return self._checksums

    def _load(self, reference: Any) -> Storage:
        """Return the storage that a pickle refers to by kind, key, device and number of elements."""
        word, kind, key, _, count = reference
        if word != "storage" or not isinstance(kind, StorageKind) or type(count) is not int:
            raise PickleRefused("it refers to something that is no storage")
        if key not in self._storages:
            self._storages[key] = self._find(f"{self._folder}data/{key}", count, kind.dtype)
        return Storage(self._storages[key], kind.dtype)

    def _find(self, name: str, count: int, dtype: torch.dtype) -> torch.UntypedStorage:
        """Return the bytes of a storage: a view of the mapped file, or what the archive gives."""
        member = self._archive.getinfo(name)
        if member.file_size != count * dtype.itemsize:
            raise PickleRefused(f"a storage of {count} {dtype} has {member.file_size} bytes")
        if self._mapped is not None and not self._swaps:
            start = find_start(self._file, member)
            if start % dtype.itemsize == 0 and start + member.file_size <= self._size:
                part: torch.UntypedStorage = self._mapped[start : start + member.file_size]
                self._members[part.data_ptr()] = member
                return part
        content = self._read(name).untyped_storage()
        if self._swaps:
            content.byteswap(dtype)  # type: ignore[no-untyped-call]
        return content

    def _read(self, name: str) -> torch.Tensor:
        """Return the bytes of a member; its checksum is compared at its end."""
        member = self._archive.getinfo(name)
        if fault := find_fault(member, self._size):
            raise PickleRefused(f"its member {name} {fault}")
        self._left -= member.file_size
        if self._left < 0:
            raise PickleRefused("its members unfold to many times the size of the file")
        content = torch.empty(member.file_size, dtype=torch.uint8)
        target, filled = content.numpy(), 0
        with self._archive.open(member) as stream:
            while block := stream.read(_BLOCK):
                target[filled : filled + len(block)] = np.frombuffer(block, np.uint8)
                filled += len(block)
        if filled != member.file_size:
            raise EOFError("the data end too early")
        return content


@contextmanager
def open_archive(path: str) -> Iterator[TorchArchive]:
    """Open an archive of `torch.save`; zipfile's errors as they come."""
    with Path(path).open("rb") as file, zipfile.ZipFile(file) as archive:
        yield TorchArchive(path, file, archive)
