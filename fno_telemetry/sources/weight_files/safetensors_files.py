"""Weights in the safetensors format: a header of names, types and places, then the numbers."""

from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from fno_telemetry.errors import CheckpointError

_LONGEST_HEADER = 16 << 20  # bytes
_MOST_TENSORS = 50_000


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Return the tensors of a file and its metadata, whole numbers in them as numbers.

    A tensor that was left out since it is another one by a second name is there by both names.
    CheckpointError, one line, for a damaged file.
    """
    try:
        with path.open("rb") as stream:
            if int.from_bytes(stream.read(8), "little") > _LONGEST_HEADER:
                raise ValueError("its header is larger than that of any network")
        with safe_open(path, framework="pt") as file:
            if len(file.keys()) > _MOST_TENSORS:
                raise ValueError(f"it names more than {_MOST_TENSORS} tensors")
            metadata = file.metadata() or {}
            # Copied, since what is read is a part of the mapped file, which may change or be cut.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: there is no such file. Check the checkpoint's path.") from error
    except Exception as error:  # the numbers may be of a type that this torch does not have
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: this safetensors file is truncated or damaged, or holds numbers that this torch does "
            f"not have ({type(error).__name__}: {reason}). Copy or save it again."
        ) from error
    for name, same in metadata.items():
        if name not in tensors and same in tensors:
            tensors[name] = tensors[same]
    return tensors, {name: int(text) if _is_number(text) else text for name, text in metadata.items()}


def is_safetensors(head: bytes, size: int) -> bool:
    """Return whether a file of this size begins like the format: the length of a JSON header, then it."""
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= size - 8


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19
