"""Damaged files: a flipped bit is refused, or what is read is right; what cannot be checked is said."""

import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fno_telemetry.errors import CheckpointError, InputError, TelemetryError
from fno_telemetry.sources import checksums
from fno_telemetry.sources.arrays import read_samples
from fno_telemetry.sources.checkpoints import read_checkpoint

FIELDS = np.random.default_rng(5).normal(size=(20, 5, 5)).astype("f4")
WEIGHTS = {"layer.weight": torch.arange(12.0).reshape(3, 4), "layer.bias": torch.tensor([0.5, 1.5, -2.0])}


def save_zip(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, diffraction=FIELDS, other=np.arange(3))


def save_deflated(path: Path) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, diffraction=FIELDS)


def save_tensor(path: Path) -> None:
    torch.save({"diffraction": torch.from_numpy(FIELDS), "extra": "a"}, path)


def save_weights(path: Path) -> None:
    torch.save({"state_dict": WEIGHTS, "global_step": 7}, path)


def read_fields(path: Path) -> Any:
    return read_samples(path, max_samples=3).values[:, 0].numpy().tolist()


def read_weights(path: Path) -> Any:
    found = read_checkpoint(path)
    return found.step, {name: value.tolist() for name, value in found.tensors.items()}


FILES: dict[str, tuple[Callable[[Path], None], Callable[[Path], Any]]] = {
    "npz": (save_zip, read_fields),
    "deflated npz": (save_deflated, read_fields),
    "pt": (save_tensor, read_fields),
    "checkpoint": (save_weights, read_weights),
}


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_never_changes_a_number_without_a_word(tmp_path: Path, name: str) -> None:
    save, read = FILES[name]
    path = tmp_path / "file"
    save(path)
    data, right, chance = path.read_bytes(), read(path), random.Random(name)
    refused = 0
    for _ in range(80):
        position = chance.randrange(len(data))
        changed = bytearray(data)
        changed[position] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        try:
            assert read(path) == right, position
        except TelemetryError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 10


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_among_the_numbers_is_refused(tmp_path: Path, name: str) -> None:
    save, read = FILES[name]
    path = tmp_path / "file"
    save(path)
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda member: member.compress_size)
    data = bytearray(path.read_bytes())
    data[largest.header_offset + largest.compress_size] ^= 4
    path.write_bytes(data)
    with pytest.raises(TelemetryError, match="CRC"):
        read(path)


def test_weights_are_checked_before_they_are_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "model.pt"
    save_weights(path)
    data = path.read_bytes()
    path.write_bytes(data.replace(WEIGHTS["layer.bias"].numpy().tobytes(), bytes(12)))
    with pytest.raises(CheckpointError, match="CRC"):
        read_checkpoint(path, trust=True)


def test_an_array_beyond_the_limit_is_not_checked_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checksums, "CHECKED", 1000)
    for save in (save_zip, save_deflated, save_tensor):
        save(tmp_path / "file")
        assert read_samples(tmp_path / "file").checksums.startswith("not checked: only a part was read")
        if save is not save_tensor:
            assert read_samples(tmp_path / "file", max_samples=20).checksums == "correct"


@pytest.mark.parametrize("mapped", [True, False])
def test_archives_without_checksums_are_read_and_said_not_to_be_checked(tmp_path: Path, mapped: bool) -> None:
    path = tmp_path / "file"
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        (save_tensor if mapped else save_weights)(path)
    finally:
        torch.serialization.set_crc32_options(before)
    with zipfile.ZipFile(path) as archive:
        zero = not any(member.CRC for member in archive.infolist())
    found = read_samples(path).checksums if mapped else read_checkpoint(path).checksums
    assert found == (checksums.NOT_STORED if zero else checksums.CORRECT)


def test_formats_without_checksums_say_so(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", FIELDS)
    assert read_samples(tmp_path / "a.npy").checksums == "not checked: the file has no checksums"
    torch.save(torch.from_numpy(FIELDS), tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    assert read_samples(tmp_path / "a.pt").checksums == "not checked: the file has no checksums"
    torch.save(WEIGHTS, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    assert read_checkpoint(tmp_path / "w.pt").checksums == "not checked: the file has no checksums"


def test_an_old_file_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(WEIGHTS, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    for length in range(0, len(data), 41):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError):
            read_checkpoint(path)
        with pytest.raises(InputError):
            read_samples(path)
