"""Files with weights that are not read: what each is, and what to do instead."""

import re
from collections.abc import Iterable

_STARTS: dict[bytes, tuple[str, str]] = {
    b"\x1f\x8b": ("a gzip file", "Unpack it: gunzip {path}"),
    b"BZh": ("a bzip2 file", "Unpack it: bunzip2 {path}"),
    b"\xfd7zXZ": ("an xz file", "Unpack it: unxz {path}"),
    b"\x28\xb5\x2f\xfd": ("a Zstandard file", "Unpack it: unzstd {path}"),
    b"7z\xbc\xaf": ("a 7z archive", "Unpack it and give the weights in it."),
    b"Rar!": ("a RAR archive", "Unpack it and give the weights in it."),
    b"\x89HDF": (
        "an HDF5 file, perhaps weights of Keras",
        "Give weights of PyTorch, or an .npz file with an array for each parameter.",
    ),
    b"\x93NUMPY": ("one NumPy array", "Give an .npz file with an array for each parameter."),
    b"GGUF": ("a GGUF file", "Give weights of PyTorch or safetensors."),
    b"\x89PNG": ("a picture", "Give the checkpoint file."),
    b"%PDF": ("a PDF document", "Give the checkpoint file."),
    b"\x7fELF": ("a program", "Give the checkpoint file."),
    b"SQLite format 3": ("a database", "Give the checkpoint file."),
}
_MSGPACK = (
    "a MessagePack file, as Flax writes",
    "Give weights of PyTorch, or an .npz file with an array for each parameter.",
)
_ONNX = (
    "an ONNX model",
    "Give the weights that it was made of: torch.save(model.state_dict(), target)",
)
_PAGE = ("a web page, not the weights", "Download the file itself, perhaps after signing in.")
_TEXT = ("text, not weights", "Give the checkpoint file.")
_EXPORTED = (
    "a program of torch.export, whose modules cannot be captured",
    "Give its weights: torch.save(torch.export.load({path!r}).state_dict, target)",
)
_PACKAGE = ("a torch.package archive", "Give the weights: torch.save(model.state_dict(), target)")
_KERAS = ("a Keras model", _STARTS[b"\x89HDF"][1])
_PICKLE = (
    "a plain pickle, not one of torch.save",
    "If you trust its maker, add `trust=True`, or save it by torch.save(pickle.load(file), target).",
)
_POINTER = b"version https://git-lfs"
_TORCH_NUMBER = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # what old files of torch.save begin with


def describe_file(path: str, head: bytes) -> str | None:
    """Return what a file is that begins like this, and what to do; None if it may be one of torch.save."""
    for start, known in _STARTS.items():
        if head.startswith(start):
            return _sentence(path, known)
    if _is_pickle(head):
        return None
    if path.endswith(".onnx") or (head[:1] == b"\x08" and b"pytorch" in head[:64]):
        return _sentence(path, _ONNX)
    if path.endswith(".msgpack") or re.match(rb"[\x81-\x8f][\xa1-\xbf]", head):  # a map whose key is a text
        return _sentence(path, _MSGPACK)
    text = head.decode("utf-8-sig", errors="ignore")
    if text.lstrip().lower().startswith(("<!doctype html", "<html", "<?xml")):
        return _sentence(path, _PAGE)
    is_text = text and len(text.encode()) >= len(head) - 6 and all(map(_is_readable, text))
    return _sentence(path, _TEXT) if is_text and not head.startswith(_POINTER) else None


def describe_archive(path: str, names: Iterable[str]) -> str | None:
    """Return what a zip archive with members of these names is; None if it may be one of torch.save."""
    last = {name.rpartition("/")[2] for name in names}
    if "model.weights.h5" in last:
        return _sentence(path, _KERAS)
    if "archive_format" in last or "serialized_exported_program.json" in last:
        return _sentence(path, _EXPORTED)
    if any("/.data/" in name for name in names):
        return _sentence(path, _PACKAGE)
    return None


def is_plain_pickle(head: bytes) -> bool:
    """Return whether a file begins like a pickle, but not like one of torch.save."""
    return _is_pickle(head) and _TORCH_NUMBER not in head[:32]


def describe_pickle(path: str) -> str:
    """Return what a pickle is that torch.save did not write, and what to do."""
    return _sentence(path, _PICKLE)


def _is_readable(letter: str) -> bool:
    return letter.isprintable() or letter.isspace()


def _is_pickle(head: bytes) -> bool:
    return head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")


def _sentence(path: str, known: tuple[str, str]) -> str:
    what, cure = known
    return f"{path}: this is {what}. {cure.format(path=path)}"
