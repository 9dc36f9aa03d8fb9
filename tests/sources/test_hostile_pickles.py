"""Arrays with a pickle in them that would act on being loaded: it never is."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fno_telemetry.errors import InputError
from fno_telemetry.sources.arrays import read_samples


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = str(trace)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (self.trace,)


def save_object_array(path: Path, payload: Payload) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([payload], object), allow_pickle=True)


def save_object_member(path: Path, payload: Payload) -> None:
    with path.open("wb") as file:
        np.savez(file, diffraction=np.array([payload], object))


def save_pickle_as_numbers(path: Path, payload: Payload) -> None:
    data = pickle.dumps(payload)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (1, 1, len(data) + 1)}
        )
        file.write(data)


def save_archive_by_hand(path: Path, payload: Payload) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(payload, 2))
        archive.writestr("archive/version", "3\n")


HOSTILE: dict[str, Callable[[Path, Payload], Any]] = {
    "object array": save_object_array,
    "object member": save_object_member,
    "pickle posing as numbers": save_pickle_as_numbers,
    "tensor file": lambda path, payload: torch.save(payload, path),
    "old tensor file": lambda path, payload: torch.save(payload, path, _use_new_zipfile_serialization=False),
    "bare pickle": lambda path, payload: path.write_bytes(pickle.dumps(payload)),
    "archive made by hand": save_archive_by_hand,
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("suffix", [".npz", ".npy", ".pt"])
def test_a_hostile_pickle_leaves_no_trace(tmp_path: Path, case: str, suffix: str) -> None:
    path, trace = tmp_path / f"array{suffix}", tmp_path / "trace"
    HOSTILE[case](path, Payload(trace))
    with pytest.raises(InputError) as caught:
        read_samples(path)
    assert not trace.exists()
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_payload_of_these_tests_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "trace")))
    assert (tmp_path / "trace").exists()


@pytest.mark.parametrize("is_archive", [True, False])
def test_an_object_beside_a_tensor_is_not_made(tmp_path: Path, is_archive: bool) -> None:
    path, trace = tmp_path / "array.pt", tmp_path / "trace"
    held = {"extra": [Payload(trace)], "diffraction": torch.rand(2, 3, 3)}
    torch.save(held, path, _use_new_zipfile_serialization=is_archive)
    assert torch.equal(read_samples(path).values[:, 0], held["diffraction"])
    with pytest.raises(InputError, match=r"'extra\.0' is a posix\.mkdir, not a tensor"):
        read_samples(path, key="extra.0")
    assert not trace.exists()


def test_an_object_member_beside_the_array_is_never_loaded(tmp_path: Path) -> None:
    path, trace = tmp_path / "array.npz", tmp_path / "trace"
    np.savez(path, diffraction=np.ones((9, 4, 4)), _metadata=np.array([Payload(trace)], object))
    assert len(read_samples(path).values) == 8
    assert not trace.exists()
