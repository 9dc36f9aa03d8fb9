"""Reading samples: the right numbers in the right order, whatever the file and its layout."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fno_telemetry.errors import InputError, OptionError
from fno_telemetry.sources.arrays import read_samples, split_batches
from fno_telemetry.sources.axis_orders import describe_axes

Array = npt.NDArray[Any]


def numbered(shape: tuple[int, ...], dtype: npt.DTypeLike = "f4") -> Array:
    return np.arange(1, 1 + int(np.prod(shape))).astype(dtype).reshape(shape)


def save_npy(path: Path, array: Array) -> None:
    with path.open("wb") as file:
        np.save(file, array)


def save_stored(path: Path, array: Array) -> None:
    with path.open("wb") as file:
        np.savez(file, other=np.ones(3), diffraction=array)


def save_deflated(path: Path, array: Array) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, diffraction=array)


def save_tensor(path: Path, array: Array) -> None:
    native = array.astype(array.dtype.newbyteorder("="), order="K")
    torch.save({"diffraction": torch.from_numpy(native)}, path)


SAVERS: dict[str, Callable[[Path, Array], None]] = {
    "npy": save_npy,
    "stored": save_stored,
    "deflated": save_deflated,
    "tensor": save_tensor,
}
every_container = pytest.mark.parametrize("container", SAVERS)


def slow_reference(array: Array, axes: str, max_samples: int) -> Array:
    """N, C, then space in the given order, by whole-array NumPy."""
    letters = axes
    for missing in "CN":
        if missing not in letters:
            array, letters = array[np.newaxis], missing + letters
    order = "NC" + "".join(letter for letter in axes if letter not in "NC")
    return np.transpose(array, [letters.index(letter) for letter in order])[:max_samples]


@settings(deadline=None, max_examples=150)
@given(
    data=st.data(),
    letters=st.permutations("NCDHWLT"),
    rank=st.integers(1, 5),
    container=st.sampled_from(sorted(SAVERS)),
    memory_order=st.sampled_from("CF"),
    dtype=st.sampled_from(["<f4", ">f4", "<f8", ">i2", "u1", "<f2"]),
    max_samples=st.integers(1, 4),
)
def test_any_axis_order_gives_what_transposing_the_whole_array_gives(
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
    letters: list[str],
    rank: int,
    container: str,
    memory_order: str,
    dtype: str,
    max_samples: int,
) -> None:
    axes = "".join(letters[:rank])
    if not set(axes) - set("NC"):
        axes += "H"
    shape = data.draw(st.tuples(*[st.integers(1, 4)] * len(axes)))
    array = np.asarray(numbered(shape, dtype), order="C" if memory_order == "C" else "F")
    path = tmp_path_factory.mktemp("orders") / "array"
    SAVERS[container](path, array)

    samples = read_samples(path, axes=axes, max_samples=max_samples)

    np.testing.assert_array_equal(samples.values.numpy(), slow_reference(array, axes, max_samples))
    assert samples.values.dtype == torch.float32
    assert samples.values.is_contiguous()
    assert (samples.stored_shape, samples.axes) == (shape, axes)


@every_container
@pytest.mark.parametrize(
    ("shape", "axes"),
    [((30, 40, 20), "HWN"), ((30, 40, 300), "HWN"), ((60, 9, 2000), "HNW"), ((3, 300_000), "HN")],
    ids=["small gaps", "large gaps", "many blocks", "rows larger than a block"],
)
def test_samples_scattered_through_a_file_are_gathered(
    tmp_path: Path, container: str, shape: tuple[int, ...], axes: str
) -> None:
    array = numbered(shape)
    SAVERS[container](tmp_path / "array", array)
    samples = read_samples(tmp_path / "array", axes=axes)
    np.testing.assert_array_equal(samples.values.numpy(), slow_reference(array, axes, 8))


@pytest.mark.parametrize(
    "dtype", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "i1", ">u2", "<i4", ">i8", "<u8"]
)
@every_container
def test_every_number_type_becomes_float32(tmp_path: Path, container: str, dtype: str) -> None:
    array = numbered((3, 4, 5), dtype)
    SAVERS[container](tmp_path / "array", array)
    samples = read_samples(tmp_path / "array")
    assert samples.values.dtype == torch.float32
    np.testing.assert_array_equal(samples.values.numpy()[:, 0], array.astype("f4"))
    assert np.dtype(samples.stored_dtype).itemsize == array.itemsize


@pytest.mark.parametrize("dtype", ["<c8", ">c8", "<c16", ">c16"])
@every_container
def test_complex_numbers_become_complex64_when_allowed(tmp_path: Path, container: str, dtype: str) -> None:
    array = numbered((3, 4, 5), dtype) * (1 - 2j)
    SAVERS[container](tmp_path / "array", array.astype(dtype))
    samples = read_samples(tmp_path / "array", allow_complex=True)
    assert samples.values.dtype == torch.complex64
    np.testing.assert_array_equal(samples.values.numpy()[:, 0], array.astype("c8"))


def test_tensors_of_kinds_that_numpy_lacks_are_read(tmp_path: Path) -> None:
    reference = torch.arange(1.0, 25.0).reshape(2, 3, 4)
    for tensor in (reference.bfloat16(), torch.nn.Parameter(reference), reference.mT.contiguous().mT):
        torch.save(tensor, tmp_path / "tensor.pt")
        values = read_samples(tmp_path / "tensor.pt").values
        assert not values.requires_grad
        assert torch.equal(values[:, 0], reference)
    conjugate = (reference * 1j).conj()
    torch.save(conjugate, tmp_path / "tensor.pt")
    values = read_samples(tmp_path / "tensor.pt", allow_complex=True).values
    assert torch.equal(values[:, 0], conjugate.resolve_conj())
    assert not values.is_conj()


def test_arrays_saved_by_python_2_are_read(tmp_path: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3L, 3L), }\n"
    data = numbered((2, 3, 3))
    (tmp_path / "old.npy").write_bytes(
        b"\x93NUMPY\x01\x00" + bytes([len(header), 0]) + header + data.tobytes()
    )
    np.testing.assert_array_equal(read_samples(tmp_path / "old.npy").values[:, 0].numpy(), data)


def test_tensor_files_from_before_torch_1_6_are_read(tmp_path: Path) -> None:
    tensor = torch.rand(3, 4, 5)
    torch.save(tensor, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(read_samples(tmp_path / "old.pt").values[:, 0], tensor)


def test_the_default_key_is_diffraction_then_diff3d(tmp_path: Path) -> None:
    first, second = numbered((2, 3, 3)), numbered((4, 3, 3))
    np.savez(tmp_path / "both.npz", diff3d=second, diffraction=first)
    np.savez(tmp_path / "one.npz", other=first, diff3d=second)
    both, one = read_samples(tmp_path / "both.npz"), read_samples(tmp_path / "one.npz")
    assert (both.key, both.stored_shape) == ("diffraction", (2, 3, 3))
    assert (one.key, one.stored_shape) == ("diff3d", (4, 3, 3))
    assert read_samples(tmp_path / "one.npz", key="other").stored_shape == (2, 3, 3)


@every_container
def test_the_kind_is_told_by_content_and_any_path_will_do(tmp_path: Path, container: str) -> None:
    for name in ("näme with spaces.npz", "wrong.npy", "wrong.pt", "none"):
        SAVERS[container](tmp_path / name, numbered((2, 3, 3)))
        samples = read_samples(tmp_path / name)
        assert samples.path == str(tmp_path / name)
        assert samples.values.shape == (2, 1, 3, 3)


def test_grid_lines_files_are_read_as_channels_last(tmp_path: Path) -> None:
    array = numbered((4, 6, 6, 4))
    np.savez(tmp_path / "a.npz", diffraction=array, _metadata=np.array({"a": 1}, dtype=object))
    samples = read_samples(tmp_path / "a.npz")
    np.testing.assert_array_equal(samples.values.numpy(), array.transpose(0, 3, 1, 2))
    assert samples.axes == "NHWC"


@pytest.mark.parametrize("shape", [(6, 6, 6), (9, 6, 6), (9, 5, 6), (6, 6, 6, 1), (9, 6, 6, 4), (1, 6, 6, 1)])
def test_ordinary_shapes_need_no_option(tmp_path: Path, shape: tuple[int, ...]) -> None:
    save_npy(tmp_path / "array.npy", numbered(shape))
    assert read_samples(tmp_path / "array.npy").axes == "NHWC"[: len(shape)]


@every_container
def test_doubtful_values_are_warned_of_only_when_they_are_read(tmp_path: Path, container: str) -> None:
    array = numbered((10, 4, 4), "f8")
    array[3, 0, :3] = [np.nan, np.inf, -np.inf]
    cases = {
        "the input holds 1 NaN and 2 infinite among the 128 values read": array,
        "all 128 input values read are zero": np.zeros((10, 4, 4)),
        "all 128 input values read are equal (2.5)": np.full((10, 4, 4), 2.5),
    }
    for text, values in cases.items():
        SAVERS[container](tmp_path / "array", values)
        assert read_samples(tmp_path / "array").warnings == (text,)
    SAVERS[container](tmp_path / "array", array)
    assert read_samples(tmp_path / "array", max_samples=3).warnings == ()


def test_a_file_with_fewer_samples_gives_those_it_has_without_a_warning(tmp_path: Path) -> None:
    save_npy(tmp_path / "array.npy", numbered((3, 4, 4)))
    samples = read_samples(tmp_path / "array.npy", max_samples=100)
    assert (len(samples.values), samples.warnings) == (3, ())


def test_a_path_with_a_null_character_is_refused() -> None:
    with pytest.raises(InputError, match="null character"):
        read_samples("a\0b")


@given(count=st.integers(1, 30), size=st.integers(1, 40) | st.just(10**30))
def test_every_sample_is_in_exactly_one_batch(count: int, size: int) -> None:
    values = torch.arange(count * 2.0).reshape(count, 1, 2)
    split = list(split_batches(values, size))
    assert torch.equal(torch.cat(split), values)
    assert [len(batch) for batch in split[:-1]] == [size] * (len(split) - 1)


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_size_below_one_is_refused_at_once(size: int) -> None:
    with pytest.raises(OptionError, match="`batch_size`"):
        split_batches(torch.zeros(3, 1, 2), size)


@pytest.mark.parametrize(
    ("axes", "words"),
    [("NHW", "samples, channels, height, width"), ("CTHW", "samples, channels, time, height, width")],
)
def test_axes_are_described_as_they_are_handed_on(axes, words):
    assert describe_axes(axes) == words


COUNTS = np.random.default_rng(1).integers(0, 90, (3, 6, 6))
MARKED = [(kind, "max") for kind in ("u1", "u2", "<u4", ">u4", "u8", "i1", "i2", ">i4", "i8")]
MARKED += [(kind, -2) for kind in ("i1", ">i2", "i4", "i8")]


@pytest.mark.parametrize(("kind", "mark"), MARKED)
@pytest.mark.parametrize("container", SAVERS)
def test_marks_of_detectors_are_named_with_their_number(
    tmp_path: Path, container: str, kind: str, mark: Any
) -> None:
    array = COUNTS.astype(kind)
    value = np.iinfo(array.dtype).max if mark == "max" else mark
    array[1, 2:4, 5] = value
    SAVERS[container](tmp_path / "array", array)
    name = np.dtype(kind).newbyteorder("=")
    expected = {
        "max": f"2 values are {value}, the largest of {name}: masked or saturated pixels?",
        -2: "2 counts are negative (down to -2): masked pixels?",
    }[mark]
    assert read_samples(tmp_path / "array").warnings == (expected,)
    assert read_samples(tmp_path / "array", max_samples=1).warnings == ()


@pytest.mark.parametrize("array", [COUNTS - 60, COUNTS.astype("f4"), np.where(COUNTS > 80, -1.5, COUNTS)])
def test_signed_values_and_floats_are_not_taken_for_marked_counts(tmp_path: Path, array: Array) -> None:
    save_npy(tmp_path / "array", array)
    assert read_samples(tmp_path / "array").warnings == ()
