"""Formats of arrays that other packages read, and the lines of Python that make batches of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class OtherFormat:
    """A format, and how its arrays are read."""

    name: str
    package: str
    array: str  # an expression; PATH is the file

    def describe_reading(self, path: str) -> str:
        """Return what to do: the option, and the three lines for the module that it names."""
        lines = (
            f"import torch, {self.package}",
            f'fields = {self.array.replace("PATH", repr(path))}[:8].astype("float32")',
            "batches = list(torch.from_numpy(fields)[:, None].split(1))",
        )
        return (
            'give it by `batches="my_data:batches"`, with these three lines in my_data.py: '
            f"{'; '.join(lines)} (with the name of your array; [:, None] adds the axis of channels)"
        )


_HDF5 = OtherFormat("an HDF5 file", "h5py", 'h5py.File(PATH)["NAME"]')
_CXI = OtherFormat("a CXI file (HDF5)", "h5py", 'h5py.File(PATH)["entry_1/data_1/data"]')
_MATLAB_AS_HDF5 = OtherFormat("a MATLAB 7.3 file (HDF5)", "h5py", 'h5py.File(PATH)["NAME"]')
_MATLAB = OtherFormat("a MATLAB file", "scipy.io", 'scipy.io.loadmat(PATH)["NAME"]')
_NETCDF = OtherFormat("a NetCDF file", "scipy.io", 'scipy.io.netcdf_file(PATH, mmap=False).variables["NAME"]')
_TIFF = OtherFormat("a TIFF picture", "tifffile", "tifffile.imread(PATH)")
_ZARR = OtherFormat("a zarr store", "zarr", 'zarr.open(PATH, mode="r")["NAME"]')
_ZARR_ARRAY = OtherFormat("a zarr array", "zarr", 'zarr.open(PATH, mode="r")')
_ZARR_ZIP = OtherFormat("a zarr store in a zip", "zarr", 'zarr.open(zarr.storage.ZipStore(PATH))["NAME"]')

_BY_START = {
    b"\x89HDF": _HDF5,
    b"MATLAB 5.0 MAT-file": _MATLAB,
    b"MATLAB 7.3 MAT-file": _MATLAB_AS_HDF5,
    b"CDF\x01": _NETCDF,
    b"CDF\x02": _NETCDF,
    b"II*\x00": _TIFF,
    b"MM\x00*": _TIFF,
    b"II+\x00": _TIFF,
    b"MM\x00+": _TIFF,
}


def recognise_file(path: str, head: bytes) -> OtherFormat | None:
    """Return the format of a file, by its first bytes."""
    found = next((kind for start, kind in _BY_START.items() if head.startswith(start)), None)
    return _CXI if found is _HDF5 and Path(path).suffix.lower() == ".cxi" else found


def recognise_folder(path: str) -> OtherFormat | None:
    """Return the format of a folder, by the files in it."""
    folder = Path(path)
    if (folder / ".zarray").is_file():
        return _ZARR_ARRAY
    return _ZARR if (folder / ".zgroup").is_file() or (folder / "zarr.json").is_file() else None


def recognise_members(names: Iterable[str]) -> OtherFormat | None:
    """Return the format of a zip archive, by the names in it."""
    marks = {".zgroup", ".zarray", "zarr.json"}
    return _ZARR_ZIP if any(name.rpartition("/")[2] in marks for name in names) else None
