"""Files written by `torch.save`, read without running anything that is in them.

A pickle may name any function and have it called. Here a name is only ever answered by torch's own short list
or by one of the stand-ins below, which do nothing but hold data; any other name needs the caller's trust.
"""

import argparse
import os
import pathlib
import pickle
import re
import stat
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fno_telemetry.errors import CheckpointError


class Inert:
    """What stands in for functions, classes and objects that no weights need; it forgets all it is given."""

    def __new__(cls, *_: object) -> "Inert":
        """Return an empty object whatever the arguments."""
        return object.__new__(cls)

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


class NumberKind:
    """What stands in for a NumPy dtype: its code, such as "f8", and its byte order."""

    def __init__(self, code: object = "", *_: object) -> None:
        self.code = code if isinstance(code, str) else ""
        self.order = "="

    def __setstate__(self, state: object) -> None:
        # A NumPy dtype's own state can describe memory that is not there; only its byte order is taken.
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">"):
            self.order = state[1]


def number(kind: object, data: object = b"", *_: object) -> object:
    """Return the Python number that a pickled NumPy scalar holds, or an `Inert` for what is no number."""
    if (
        isinstance(kind, NumberKind)
        and isinstance(data, bytes)
        and re.fullmatch(r"[biufc]\d{1,2}", kind.code)
    ):
        value: object = np.frombuffer(data, dtype=np.dtype(kind.order + kind.code), count=1)[0].item()
        return value
    return Inert()


def empty_dict(*_: object) -> dict[object, object]:
    """Return the plain dict that stands in for a dict with a default; its items follow in the pickle."""
    return {}


STAND_INS: dict[str, Callable[..., Any]] = {
    "argparse.Namespace": argparse.Namespace,
    "types.SimpleNamespace": argparse.Namespace,
    "collections.defaultdict": empty_dict,
    "builtins.frozenset": frozenset,
    **{
        f"builtins.{name}": Inert
        for name in ("bool", "bytes", "dict", "float", "int", "list", "str", "tuple")
    },
    "numpy.dtype": NumberKind,
    "numpy.core.multiarray.scalar": number,
    "numpy._core.multiarray.scalar": number,
    **{
        f"{module}.{name}": pathlib.PurePosixPath
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "PurePosixPath")
    },
    **{
        f"{module}.{name}": pathlib.PureWindowsPath
        for module in ("pathlib", "pathlib._local")
        for name in ("WindowsPath", "PureWindowsPath")
    },
    **{
        # Lightning's settings: a dict that also has attributes.
        f"{module}.AttributeDict": dict
        for module in (
            "lightning.fabric.utilities.data",
            "lightning_fabric.utilities.data",
            "lightning.pytorch.utilities.parsing",
            "pytorch_lightning.utilities.parsing",
        )
    },
}
"""What answers to a name in a pickle; the name's own module is not even imported."""

INERT = re.compile(
    r"torch\._C\._nn\.\w+|torch\.nn\.functional\.\w+|torch\.nn\.modules\.activation\.\w+"
    r"|neuralop\.[\w.]+|numpy\.[\w.]+|datetime\.\w+|functools\.partial"
)
"""Names that are answered by `Inert`: activations and layer classes kept among settings, arrays, dates."""


def read_torch_file(path: str, *, trust: bool = False) -> object:
    """Return what `torch.save` wrote to `path`, tensors on the CPU.

    Nothing in the file is run unless `trust` is given: then it is unpickled in full, whatever it does.
    CheckpointError, one line, when there is no such file, or it is of another kind, damaged, or needs trust.
    """
    _check_kind(path)
    with warnings.catch_warnings():
        # Torch warns about old pickle protocols and storage classes, which no user of a file can change.
        warnings.simplefilter("ignore")
        return _read_trusted(path) if trust else _read_safely(path)


def make_working_folder_importable() -> None:
    """Let modules in the working folder be imported, as under `python -m` but not in installed commands."""
    folder = str(Path.cwd())
    if "" not in sys.path and folder not in sys.path:
        sys.path.insert(0, folder)


def _read_safely(path: str) -> object:
    """Read with torch's restricted unpickler and the stand-ins."""
    stand_ins = dict(STAND_INS)
    while True:
        try:
            with torch.serialization.safe_globals([(target, name) for name, target in stand_ins.items()]):
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            refused = re.search(r"GLOBAL (\S+)", str(error))
            if refused is None:
                raise _damaged(path, error) from error
            name = refused[1]
            if not INERT.fullmatch(name) or name in stand_ins:
                raise CheckpointError(
                    f"{path}: reading this file would call {name!r}, which may run any code. If you "
                    "trust its maker, add `trust=True`; better, save the state_dict() alone."
                ) from error
            stand_ins[name] = Inert
        except Exception as error:  # a damaged file makes the reader raise anything
            raise _damaged(path, error) from error


def _read_trusted(path: str) -> object:
    """Unpickle everything; the caller has said that the file may run code."""
    make_working_folder_importable()
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except ModuleNotFoundError as error:
        raise CheckpointError(
            f"{path}: reading it needs the module {error.name!r}, which is not installed. Install it, or run "
            "from the folder that holds it."
        ) from error
    except (Exception, SystemExit) as error:  # the file may hold, and run, anything
        raise _damaged(path, error) from error


def _damaged(path: str, error: BaseException) -> CheckpointError:
    """Return the error for a file that begins like a checkpoint and cannot be read to its end."""
    reason = " ".join(str(error).rpartition("WeightsUnpickler error: ")[2].split())[:200] or "no reason given"
    cure = "Copy or save it again with torch.save."
    if isinstance(error, pickle.UnpicklingError):
        cure = "Save its state_dict() with torch.save, or add `trust=True` if you trust its maker."
    return CheckpointError(
        f"{path}: the file is truncated or damaged, or its pickle is not of the kind torch.save writes "
        f"({type(error).__name__}: {reason}). {cure}"
    )


def _check_kind(path: str) -> None:
    """Raise CheckpointError for a path that holds no file of `torch.save`."""
    try:
        status = Path(path).stat()
        if stat.S_ISDIR(status.st_mode):
            raise CheckpointError(f"{path}: this is a folder. Name the checkpoint file in it.")
        if not stat.S_ISREG(status.st_mode):
            # Opening a pipe would wait for ever.
            raise CheckpointError(f"{path}: this is not a regular file. Name a checkpoint file.")
        with Path(path).open("rb") as file:
            head = file.read(64)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: there is no such file. Check the checkpoint's path.") from error
    except OSError as error:
        raise CheckpointError(
            f"{path}: the file cannot be read ({os.strerror(error.errno or 0)})."
        ) from error
    if not head:
        raise CheckpointError(f"{path}: the file is empty. Copy or save the checkpoint again.")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path}: this is a Git LFS pointer, not the weights. Run: git lfs pull")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < status.st_size:
        raise CheckpointError(
            f"{path}: this is a safetensors file, which is not read. Convert it: "
            "torch.save(safetensors.torch.load_file(source), target)"
        )
    if head.startswith(b"PK\x03\x04"):
        _check_archive(path)
    elif not head.startswith(b"\x80"):
        raise CheckpointError(
            f"{path}: this is not a PyTorch checkpoint (it begins with {head[:8]!r}). Give one of torch.save."
        )


def _check_archive(path: str) -> None:
    """Raise CheckpointError for a zip archive that holds no pickle of `torch.save`."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _damaged(path, error) from error
    if "constants.pkl" in names:
        raise CheckpointError(
            f"{path}: this is a TorchScript program, whose modules cannot be captured. Give its weights: "
            "torch.save(torch.jit.load(source).state_dict(), target)"
        )
    if "data.pkl" not in names:
        raise CheckpointError(
            f"{path}: this is a zip archive, but not one that torch.save wrote. Give the checkpoint file."
        )
