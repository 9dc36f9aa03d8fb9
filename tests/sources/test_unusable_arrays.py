"""Files and options that cannot be used: one line each, naming the file; no false claim is believed."""

import collections
import os
import pathlib
import pickle
import struct
import sys
import tracemalloc
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fno_telemetry.errors import InputError, OptionError, TelemetryError
from fno_telemetry.sources.arrays import read_samples

NOISE = np.random.default_rng(0).random((12, 16, 16), "f4")
Maker = Callable[[Path], Any]


def npy_with_header(text: str, data: bytes = b"") -> Maker:
    raw = text.encode("latin1")
    return lambda path: path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(raw)) + raw + data)


def npy_claiming(shape: str, data: bytes = b"") -> Maker:
    return npy_with_header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n", data)


def npy(array: object, dtype: Any = None) -> Maker:
    def make(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, np.asarray(array, dtype), allow_pickle=True)

    return make


def npz(**arrays: object) -> Maker:
    def make(path: Path) -> None:
        with path.open("wb") as file:
            members: dict[str, Any] = {name: np.asarray(array) for name, array in arrays.items()}
            np.savez(file, **members)

    return make


def deflated(path: Path) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, diffraction=NOISE)


def then(make: Maker, change: Callable[[bytearray], bytes | bytearray]) -> Maker:
    def made(path: Path) -> None:
        make(path)
        path.write_bytes(change(bytearray(path.read_bytes())))

    return made


def half(data: bytearray) -> bytearray:
    return data[: len(data) // 2]


def flipped(position: int) -> Callable[[bytearray], bytearray]:
    def flip(data: bytearray) -> bytearray:
        data[position] ^= 0xFF
        return data

    return flip


def flagged(flag: int) -> Callable[[bytearray], bytearray]:
    def change(data: bytearray) -> bytearray:
        data[6] |= flag
        data[data.index(b"PK\x01\x02") + 8] |= flag
        return data

    return change


def claiming_more(data: bytearray) -> bytearray:
    """Both the zip directory and the array header claim a tebibyte."""
    directory = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, directory + 24, 0xFFFFFFF0)
    return data


def zip_of(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Maker:
    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, data in members.items():
                archive.writestr(name, data)

    return make


def bzipped(path: Path) -> None:
    npy(NOISE)(path)
    zip_of({"diffraction.npy": path.read_bytes()}, zipfile.ZIP_BZIP2)(path)


def tensor(value: object, *, old: bool = False) -> Maker:
    return lambda path: torch.save(value, path, _use_new_zipfile_serialization=not old)


def rezipped(path: Path) -> None:
    tensor(torch.zeros(2, 3, 3))(path)
    with zipfile.ZipFile(path) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    zip_of(held, zipfile.ZIP_DEFLATED)(path)


BAD_FILES: dict[str, tuple[Maker, str]] = {
    "missing": (lambda path: None, "no such file"),
    "folder": (lambda path: path.mkdir(), "is a folder"),
    "pipe": (lambda path: os.mkfifo(path), "not a regular file"),
    "link to itself": (lambda path: path.symlink_to(path), "cannot be read"),
    "empty file": (lambda path: path.touch(), "is empty"),
    "git-LFS pointer": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        "git lfs pull",
    ),
    "web page": (lambda path: path.write_text("\n<!DOCTYPE html>\n<html>Sign in</html>"), "a web page"),
    "text": (lambda path: path.write_text("1.0, 2.0\n3.0, 4.0 µm\n"), "is text"),
    "HDF5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)), "h5py.File("),
    "MATLAB 5": (lambda path: path.write_bytes(b"MATLAB 5.0 MAT-file, Platform" + bytes(100)), "loadmat("),
    "MATLAB 7.3": (
        lambda path: path.write_bytes(b"MATLAB 7.3 MAT-file, Platform" + bytes(400)),
        "h5py.File(",
    ),
    "NetCDF": (lambda path: path.write_bytes(b"CDF\x02" + bytes(100)), "netcdf_file("),
    "TIFF": (lambda path: path.write_bytes(b"MM\x00*" + bytes(100)), "tifffile.imread("),
    "large TIFF": (lambda path: path.write_bytes(b"II+\x00" + bytes(100)), "tifffile.imread("),
    "zarr": (lambda path: (path.mkdir(), (path / ".zgroup").touch()), "zarr.open("),
    "zarr in a zip": (zip_of({"fields/.zarray": b"{}", "fields/0.0": b""}), "ZipStore("),
    "unknown bytes": (lambda path: path.write_bytes(bytes(range(256))), "not known"),
    "truncated zip": (then(npz(diffraction=NOISE), half), "cut short"),
    "zip beginning only": (lambda path: path.write_bytes(b"PK\x03\x04"), "cut short"),
    "empty zip": (zip_of({}), "no array"),
    "zip without arrays": (zip_of({"readme.txt": b"hello"}), "no array"),
    "corrupted deflate stream": (then(deflated, flipped(3000)), "damaged"),
    "corrupted deflate start": (then(deflated, flipped(70)), "damaged"),
    "wrong local header": (then(deflated, flipped(0x1E)), "damaged"),
    "encrypted member": (then(npz(diffraction=NOISE), flagged(0x01)), "encrypted"),
    "patched member": (then(npz(diffraction=NOISE), flagged(0x20)), "damaged"),
    "unusual compression": (bzipped, "zip method 12"),
    "member claiming more than the zip": (then(npz(diffraction=NOISE), claiming_more), "claims"),
    "deflated member claiming more": (then(deflated, claiming_more), "claims"),
    "member that is no array": (zip_of({"diffraction.npy": b"not an array at all"}), "not a NumPy array"),
    "empty member": (zip_of({"diffraction.npy": b""}), "ends inside"),
    "wrong key": (npz(first=NOISE, second=NOISE), "`key`. Known: first, second."),
    "many keys": (npz(**{f"k{i}": [0.0] for i in range(20)}), "k11 and 8 more"),
    "truncated npy": (then(npy(NOISE), half), "cut short"),
    "npy with a tail": (then(npy(NOISE), lambda data: data + b"more"), "promises"),
    "truncated npy magic": (lambda path: path.write_bytes(b"\x93NUM"), "ends inside"),
    "truncated npy header": (
        lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\xf0\x00{'descr"),
        "ends inside",
    ),
    "npy of an unknown version": (
        lambda path: path.write_bytes(b"\x93NUMPY\x09\x00" + bytes(50)),
        "version 9",
    ),
    "endless npy header": (
        lambda path: path.write_bytes(b"\x93NUMPY\x02\x00\xff\xff\xff\xff{"),
        "header claims",
    ),
    "header of nonsense": (npy_with_header("{'descr': import os}"), "cannot be understood"),
    "header of deep nesting": (npy_with_header("(" * 4000), "cannot be understood"),
    "header with a call": (npy_with_header("{'descr': open('x', 'w')}"), "cannot be understood"),
    "header without a shape": (npy_with_header("{'descr': '<f4', 'fortran_order': False}"), "understood"),
    "negative shape": (npy_claiming("(-1, -4, 4)", bytes(64)), "an impossible shape"),
    "shape of words": (npy_claiming("('a', 2, 2)"), "an impossible shape"),
    "huge shape": (npy_claiming("(1000000, 1000000, 1000000)", bytes(64)), "promises"),
    "absurd shape": (npy_claiming(f"({'9' * 1900}, {'9' * 1900}, 4)"), "over 2^63"),
    "an order in words": (
        npy_with_header("{'descr':'<f4','fortran_order':'False','shape':(0,)}"),
        "impossible order",
    ),
    "impossible number type": (npy_with_header("{'descr':'<f3','fortran_order':False,'shape':(1,)}"), "<f3"),
    "object dtype": (npy([{"a": 1}], object), "Python objects"),
    "object member": (npz(diffraction=np.array([{"a": 1}], object)), "Python objects"),
    "structured dtype": (npy(np.zeros(4, [("a", "f4"), ("b", "i4")])), "named fields"),
    "text dtype": (npy(["a", "b"]), "holds text"),
    "bytes dtype": (npy([b"a", b"b"]), "holds text"),
    "date dtype": (npy(np.zeros(3, "M8[s]")), "dates"),
    "raw dtype": (npy(np.zeros(3, "V4")), "raw bytes"),
    "booleans": (npy(np.ones((2, 3, 3), bool)), "booleans"),
    "complex npy": (npy(NOISE * 1j), "complex"),
    "complex tensor": (tensor(torch.zeros(2, 3, 3) * 1j), "complex"),
    "overflow": (npy(np.full((2, 3, 3), 1e39)), "18 of its float64 numbers exceed"),
    "tensor overflow": (tensor(torch.full((2, 3, 3), 1e39, dtype=torch.float64)), "18 of its float64"),
    "0-d": (npy(1.0), "single number"),
    "1-d": (npy(np.ones(5)), '`axes="L"`'),
    "2-d": (npy(np.ones((5, 5))), '`axes="HW"` for one field, or `axes="NL"` for samples'),
    "2-d tensor": (tensor(torch.ones(5, 5)), '`axes="HW"`'),
    "5-d": (npy(np.ones((2, 1, 3, 4, 5))), '`axes="NCDHW"`'),
    "6-d": (npy(np.ones((2, 1, 3, 4, 5, 6))), "one letter per axis"),
    "zero samples": (npz(diffraction=np.zeros((0, 4, 4))), "no samples"),
    "zero tensor samples": (tensor(torch.zeros(0, 4, 4)), "no samples"),
    "zero-sized axis": (npy(np.zeros((3, 0, 4))), "axis H has size zero"),
    "truncated tensor file": (then(tensor(torch.zeros(9, 9, 9)), half), "cut short"),
    "truncated old tensor file": (then(tensor(torch.zeros(9, 9, 9), old=True), half), "torch.save"),
    "tensor file of a list": (tensor([torch.zeros(2, 3, 3)]), "`key`. Known: 0."),
    "tensor file of a list without tensors": (tensor([1, "a"]), "holds a list without tensors"),
    "tensor file of an array of NumPy": (tensor({"diffraction": NOISE}), "'diffraction' is a numpy.ndarray"),
    "tensor file without tensors": (tensor({"a": 1}), "without tensors"),
    "tensor file with other keys": (tensor({"a": torch.zeros(1), "b": 2}), "`key`. Known: a."),
    "tensor of booleans": (tensor(torch.zeros(2, 3, 3, dtype=torch.bool)), "booleans"),
    "sparse tensor": (tensor(torch.eye(3).to_sparse()), "dense"),
    "tensor without values": (tensor(torch.zeros(2, 3, 3, device="meta")), "dense"),
    "tensor claiming more than is stored": (tensor(torch.ones(1, 1, 1).expand(9, 10**6, 10**6)), "claims"),
    "tensor file compressed again": (rezipped, "compressed"),
    "plain pickle": (lambda path: path.write_bytes(pickle.dumps([1, 2])), "torch.save"),
    "pickle of nothing": (lambda path: path.write_bytes(b"\x80\x02."), "torch.save"),
}


def assert_one_line_naming(error: TelemetryError, path: Path) -> None:
    assert str(path) in str(error)
    assert len(str(error).splitlines()) == 1
    assert str(error).endswith(".")


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_cannot_be_used_is_answered_in_one_line(tmp_path: Path, case: str) -> None:
    make, phrase = BAD_FILES[case]
    path = tmp_path / "my input.npz"
    make(path)
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as caught:
            read_samples(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert phrase in str(caught.value)
    assert_one_line_naming(caught.value, path)
    assert peak < 4 << 20, "a claim was believed"


def test_a_file_that_may_not_be_read_is_answered_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "array.npy"
    npy(NOISE)(path)
    monkeypatch.setattr(pathlib.Path, "open", denied)
    with pytest.raises(InputError, match="Permission denied") as caught:
        read_samples(path)
    assert_one_line_naming(caught.value, path)


@pytest.mark.parametrize("axes", ["", "NHQ", "NHH", "NHWC", "HW", "NC", "?", "N HW", "N\nW", "ÄHW"])
def test_axes_that_cannot_be_used_are_an_option_error(tmp_path: Path, axes: str) -> None:
    path = tmp_path / "array.npy"
    npy(NOISE)(path)
    with pytest.raises(OptionError, match="`axes`") as caught:
        read_samples(path, axes=axes)
    assert_one_line_naming(caught.value, path)


@pytest.mark.parametrize("count", [0, -3])
def test_fewer_than_one_sample_is_an_option_error(tmp_path: Path, count: int) -> None:
    with pytest.raises(OptionError, match="`max_samples`") as caught:
        read_samples(tmp_path / "array.npy", max_samples=count)
    assert_one_line_naming(caught.value, tmp_path / "array.npy")


@pytest.mark.parametrize("make", [npy(NOISE), tensor(torch.zeros(2, 3, 3))], ids=["npy", "tensor"])
def test_a_key_for_a_file_without_names_is_refused(tmp_path: Path, make: Maker) -> None:
    path = tmp_path / "array"
    make(path)
    with pytest.raises(InputError, match="leave `key` 'x' out") as caught:
        read_samples(path, key="x")
    assert_one_line_naming(caught.value, path)


@pytest.mark.parametrize(
    ("shape", "likely", "literal"),
    [
        ((6, 6, 9), "HWN", "NHW"),
        ((9, 1, 6, 6), "NCHW", "NHWC"),
        ((9, 2, 6, 6), "NCHW", "NHWC"),
        ((9, 1, 6, 5), "NCHW", "NHWC"),
        ((6, 6, 9, 1), "HWNC", "NHWC"),
        ((6, 6, 9, 4), "HWNC", "NHWC"),
    ],
)
@pytest.mark.parametrize("container", ["npy", "tensor"])
def test_a_shape_that_looks_like_another_order_is_refused_with_the_options_that_fix_it(
    tmp_path: Path, shape: tuple[int, ...], likely: str, literal: str, container: str
) -> None:
    path = tmp_path / "array"
    (npy(np.ones(shape, "f4")) if container == "npy" else tensor(torch.ones(shape)))(path)
    with pytest.raises(InputError) as caught:
        read_samples(path)
    assert_one_line_naming(caught.value, path)
    for axes in (likely, literal):
        assert f'`axes="{axes}"`' in str(caught.value)
        assert read_samples(path, axes=axes.lower()).axes == axes


def test_damage_after_the_samples_of_a_small_deflated_array_is_still_found(tmp_path: Path) -> None:
    path = tmp_path / "array.npz"
    then(deflated, lambda data: flipped(data.index(b"PK\x01\x02") - 100)(data))(path)
    with pytest.raises(InputError, match="damaged"):
        read_samples(path, max_samples=1)


@pytest.mark.parametrize("name", ["my fields.h5", "it's.cxi", "a.mat"])
def test_the_lines_for_another_format_are_python_that_makes_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(b"MATLAB 5.0 MAT-file" if name.endswith("mat") else b"\x89HDF\r\n\x1a\n")
    with pytest.raises(InputError, match=r'`batches="my_data:batches"`, with these three lines') as caught:
        read_samples(path)
    lines = str(caught.value).partition("my_data.py: ")[2].partition(" (with the name")[0]

    class Reader(types.ModuleType):
        def __init__(self, name: str) -> None:
            super().__init__(name)

        def File(self, opened: str) -> Any:  # noqa: N802
            assert opened == str(path)
            return collections.defaultdict(lambda: NOISE)

        loadmat = File

    for module in ("h5py", "scipy", "scipy.io"):
        monkeypatch.setitem(sys.modules, module, Reader(module))
    sys.modules["scipy"].io = sys.modules["scipy.io"]
    made: dict[str, Any] = {}
    exec(lines, made)
    assert [batch.shape for batch in made["batches"]] == [(1, 1, 16, 16)] * 8
