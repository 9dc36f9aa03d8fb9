"""Eight samples of a file of any size cost eight samples of reading and of memory."""

import io
import pathlib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from fno_telemetry.sources import checksums
from fno_telemetry.sources.arrays import read_samples


class CountingFile(io.FileIO):
    """Counts the bytes that are really asked for."""

    taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(-1 if size is None else size)
        CountingFile.taken += len(data or b"")
        return data or b""


@pytest.fixture
def format_count(monkeypatch: pytest.MonkeyPatch) -> type[CountingFile]:
    monkeypatch.setattr(pathlib.Path, "open", lambda self, *_, **__: CountingFile(str(self), "rb"))
    monkeypatch.setattr(CountingFile, "taken", 0)
    return CountingFile


@pytest.mark.parametrize("container", ["npy", "stored"])
@pytest.mark.parametrize("memory_order", ["C", "F"])
@pytest.mark.parametrize("axes", ["NHW", "HWN", "HNW"])
def test_eight_samples_of_a_plain_array_cost_eight_samples_of_reading(
    tmp_path: Path,
    format_count: type[CountingFile],
    monkeypatch: pytest.MonkeyPatch,
    container: str,
    memory_order: str,
    axes: str,
) -> None:
    shape = tuple(1000 if letter == "N" else 40 for letter in axes)
    array = np.asarray(
        np.random.default_rng(0).random(shape, "f4"), order="C" if memory_order == "C" else "F"
    )
    with io.FileIO(str(tmp_path / "array"), "wb") as file:
        np.save(file, array) if container == "npy" else np.savez(file, diffraction=array)
    monkeypatch.setattr(checksums, "CHECKED", array.nbytes - 1)
    samples = read_samples(tmp_path / "array", axes=axes)
    values = samples.values
    assert samples.checksums == (checksums.NOT_STORED if container == "npy" else checksums.TOO_LARGE)
    np.testing.assert_array_equal(values.numpy(), np.moveaxis(array, axes.index("N"), 0)[:8, np.newaxis])
    assert values.nbytes <= format_count.taken < values.nbytes + 20_000


def test_eight_samples_of_a_huge_file_cost_eight_samples_of_memory(tmp_path: Path) -> None:
    path = tmp_path / "huge.npy"
    header = {"descr": "<f4", "fortran_order": False, "shape": (2**16, 64, 64)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 2**30)  # sparse: a gibibyte that takes no room
    tracemalloc.start()
    try:
        samples = read_samples(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert samples.values.shape == (8, 1, 64, 64)
    assert peak < 4 * samples.values.nbytes


@pytest.mark.parametrize("axes", ["NHW", "HWN"])
def test_a_deflated_array_is_streamed_in_bounded_memory(tmp_path: Path, axes: str) -> None:
    shape = (2000, 64, 64) if axes == "NHW" else (64, 64, 2000)
    np.savez_compressed(tmp_path / "array.npz", diffraction=np.ones(shape, "f4"))
    tracemalloc.start()
    try:
        read_samples(tmp_path / "array.npz", axes=axes)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20  # of 31 MiB


def test_what_is_returned_does_not_keep_a_tensor_file_mapped(tmp_path: Path) -> None:
    torch.save(torch.rand(100, 16, 16), tmp_path / "tensor.pt")
    values = read_samples(tmp_path / "tensor.pt").values
    assert values.untyped_storage().nbytes() == 8 * 16 * 16 * 4


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs Linux to count what is read")
def test_eight_samples_of_a_large_tensor_file_do_not_read_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bytes_read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    torch.save(torch.rand(2000, 32, 32), tmp_path / "tensor.pt")
    monkeypatch.setattr(checksums, "CHECKED", 1 << 20)
    before = bytes_read()
    assert read_samples(tmp_path / "tensor.pt").checksums == checksums.TOO_LARGE
    assert bytes_read() - before < 1 << 20  # of 8 MiB
