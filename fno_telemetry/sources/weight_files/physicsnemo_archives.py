"""PhysicsNeMo's `.mdlus`: a tar (older) or zip (newer) archive with `model.pt`, which torch.save wrote."""

import tarfile
import zipfile
from pathlib import Path

from fno_telemetry.errors import CheckpointError
from fno_telemetry.sources.weight_files.inflation import check_inflation
from fno_telemetry.sources.weight_files.torch_bytes import read_torch_stream

MEMBER = "model.pt"


def read_zip(path: Path, *, trust: bool = False) -> tuple[object, str]:
    """Return what `model.pt` in a zip archive holds, and what its checksums say.

    CheckpointError, one line, when it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo(MEMBER)
            check_inflation([member], path.stat().st_size)
            with archive.open(member) as stream:
                return read_torch_stream(stream, f"{path}, {MEMBER}", trust=trust)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged archive makes the reader raise anything
        raise _damaged(path, error) from error


def read_tar(path: Path, *, trust: bool = False) -> tuple[object, str]:
    """Return what `model.pt` in a tar archive holds, and what its checksums say.

    CheckpointError, one line, when it cannot be read.
    """
    names = []
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                stream = archive.extractfile(member) if name == MEMBER and member.isreg() else None
                if stream is None:
                    names.append(name)
                elif member.issparse() or member.size > path.stat().st_size:
                    raise ValueError(f"{MEMBER} claims {member.size} bytes")
                else:
                    return read_torch_stream(stream, f"{path}, {MEMBER}", trust=trust)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged archive makes the reader raise anything
        raise _damaged(path, error) from error
    held = ", ".join(names[:5]) or "nothing"
    raise CheckpointError(
        f"{path}: this is a tar archive with {held}, not with {MEMBER}. Unpack it and give the weights in it."
    )


def _damaged(path: Path, error: Exception) -> CheckpointError:
    reason = " ".join(str(error).split())[:200]
    return CheckpointError(
        f"{path}: this archive is truncated or damaged ({type(error).__name__}: {reason}). "
        "Copy or save it again."
    )
