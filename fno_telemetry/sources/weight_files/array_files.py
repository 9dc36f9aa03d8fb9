"""Weights as NumPy arrays: an `.npz` file with an array for each parameter."""

import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from fno_telemetry.errors import CheckpointError
from fno_telemetry.sources.weight_files.inflation import check_inflation

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def has_arrays(names: Iterable[str]) -> bool:
    """Return whether a zip archive with members of these names is one of NumPy."""
    return any(name.endswith(".npy") for name in names)


def read_arrays(path: Path) -> dict[str, Tensor]:
    """Return the arrays of an `.npz` file by name; what holds no numbers is left out, nothing is unpickled.

    CheckpointError, one line, when it is damaged.
    """
    tensors = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
            check_inflation(members, path.stat().st_size)
            for member in members:
                with archive.open(member) as stream:
                    tensor = _read(stream, member.file_size)
                if tensor is not None:
                    tensors[member.filename.removesuffix(".npy")] = tensor
    except Exception as error:  # a damaged archive makes the readers raise anything
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: this .npz file is truncated or damaged ({type(error).__name__}: {reason}). "
            "Copy or save it again."
        ) from error
    return tensors


def _read(stream: IO[bytes], size: int) -> Tensor | None:
    shape, in_columns, kind = _HEADERS[np.lib.format.read_magic(stream)](stream)
    data = stream.read()  # to the end, where the archive compares the checksum
    if kind.kind not in "biufc":
        return None
    if math.prod(shape) * kind.itemsize != len(data):
        raise ValueError(f"its header promises {shape} of {kind}, and {len(data)} of {size} bytes follow")
    values = np.frombuffer(data, kind).astype(kind.newbyteorder("="))
    return torch.from_numpy(values.reshape(shape, order="F" if in_columns else "C").copy())
