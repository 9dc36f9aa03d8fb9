"""Small files that stand for a lot of work or memory: each is answered in one line, soon."""

import argparse
import contextlib
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from fno_telemetry.errors import CheckpointError, InputError
from fno_telemetry.sources import pickle_bounds, torch_archives
from fno_telemetry.sources.arrays import read_samples
from fno_telemetry.sources.checkpoints import read_checkpoint
from support.torch_pickles import limited_memory, limited_time, save_pickle

MANY = 3000


def laughing(kind: type, times: int = 60, width: int = 2) -> bytes:
    held: object = kind()
    for _ in range(times):
        held = dict.fromkeys(range(width), held) if kind is dict else kind([held] * width)
    return pickle.dumps(held, 2)


def around_itself(kind: type) -> bytes:
    held: object = kind()
    if isinstance(held, list):
        held.append(held)
    elif isinstance(held, dict):
        held["a"] = held
    else:
        vars(held)["a"] = held
    return pickle.dumps(held, 2)


def keyed(key: bytes) -> bytes:
    return b"\x80\x02}" + key + b"Ns."


def tensor(
    *, count: int = 4, offset: int = 0, shape: bytes = b"K\x04\x85", strides: bytes = b"K\x01\x85"
) -> bytes:
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    number = b"\x8a\x08" + struct.pack("<q", count)
    start = b"\x8a\x08" + struct.pack("<q", offset)
    hooks = b"\x89ccollections\nOrderedDict\n)R"
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + number
        + b"tQ"
        + start
        + shape
        + strides
        + hooks
        + b"tR"
    )


def in_a_dict(value: bytes) -> bytes:
    return b"\x80\x02}X\x01\x00\x00\x00w" + value + b"s."


HUGE = b"J\xff\xff\xff\x7f"  # 2 ** 31 - 1
TUPLES = b")" + b"2\x86" * 60  # each holds the one before twice
PICKLES: dict[str, tuple[bytes, str]] = {
    "deep lists": (b"\x80\x02" + b"]" * MANY + b"a" * (MANY - 1) + b".", "nested"),
    "deep tuples": (b"\x80\x02)" + b"\x85" * MANY + b".", "nested"),
    "deep dicts": (b"\x80\x02" + b"}K\x01" * MANY + b"N" + b"s" * MANY + b".", "nested"),
    "deep namespaces": (
        b"\x80\x02" + b"cargparse\nNamespace\n)R}X\x01\x00\x00\x00a" * 999 + b"N" + b"sb" * 999 + b".",
        "nested",
    ),
    "a list in itself": (around_itself(list), "hold themselves"),
    "a dict in itself": (around_itself(dict), "hold themselves"),
    "a namespace in itself": (around_itself(argparse.Namespace), "hold themselves"),
    "doubled lists": (laughing(list), "repeated"),
    "doubled tuples": (laughing(tuple), "repeated"),
    "doubled dicts": (laughing(dict), "repeated"),
    "wide dicts": (laughing(dict, times=5, width=30), "repeated"),
    "a key of doubled tuples": (keyed(TUPLES), "a key of more than"),
    "a key of deep tuples": (keyed(b")" + b"\x85" * 100_000), "a key of more than"),
    "a set of doubled tuples": (b"\x80\x04\x8f(" + TUPLES + b"\x90.", "a key of more than"),
    "frozen sets in each other": (b"\x80\x04(" * MANY + b"\x91" * MANY + b".", "a key of more than"),
    "a made set of doubled tuples": (
        b"\x80\x02c__builtin__\nset\n](" + TUPLES + b"e\x85R.",
        "a key of more than",
    ),
    "an ordered dict of doubled tuples": (
        b"\x80\x02ccollections\nOrderedDict\n](" + TUPLES + b"K\x01\x86e\x85R.",
        "a key of more than",
    ),
    "integers of equal hash": (
        b"\x80\x02}("
        + b"".join(b"\x8a\x0b" + (n * (2**61 - 1)).to_bytes(11, "little") + b"N" for n in range(3000))
        + b"u.",
        "neither text nor indices",
    ),
    "tuples of equal hash": (
        b"\x80\x02}("
        + b"".join(
            b"("
            + b"".join(b"J\xfe\xff\xff\xff" if n >> bit & 1 else b"J\xff\xff\xff\xff" for bit in range(12))
            + b"tN"
            for n in range(3000)
        )
        + b"u.",
        "neither text nor indices",
    ),
    "text of a claimed length": (b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"a.", "remain"),
    "bytes of a claimed length": (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"a.", "remain"),
    "a byte array of a claimed length": (b"\x80\x05\x96" + struct.pack("<Q", 2**35) + b"a.", "remain"),
    "a frame of a claimed length": (b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"}.", "no tensors"),
    "a memory of a claimed size": (b"\x80\x02}r\xff\xff\xff\xff.", "no tensors"),
    "an endless number": (
        b"\x80\x02\x8b" + struct.pack("<i", 2000) + b"\x7f" * 2000 + b".",
        "integer of more than",
    ),
    "digits without end": (b"\x80\x02L" + b"9" * 5000 + b"L\n.", "ValueError"),
    "a key of long texts": (
        keyed(b"(X\x00\x10\x00\x00" + b"a" * 4096 + b"2" * 500 + b"t"),
        "a key of more than",
    ),
    "a name without end": (keyed(b"X\x00\x00\x01\x00" + b"a" * 65536), "a key of more than"),
    "an unknown extension": (b"\x80\x02\x82\x01.", "EXT1"),
    "an outer buffer": (b"\x80\x05\x97.", "NEXT_BUFFER"),
    "nothing": (b"\x80\x02.", "IndexError"),
    "no end": (b"\x80\x02}", "STOP"),
    "a mark that is not there": (b"\x80\x02t.", "IndexError"),
    "a value that was not kept": (b"\x80\x02h\x05.", "KeyError"),
    "a list as a key": (keyed(b"]"), "unhashable"),
    "items without values": (b"\x80\x02}(K\x01u.", "ValueError"),
    "items of a number": (b"\x80\x02K\x01K\x01K\x01s.", "items of a int"),
    "a tensor beyond its storage": (
        in_a_dict(tensor(shape=b"K\x05\x85")),
        "claims 20 bytes of a storage of 16",
    ),
    "a tensor that begins beyond it": (in_a_dict(tensor(offset=2**40)), "claims"),
    "a tensor that begins before it": (in_a_dict(tensor(offset=-1)), "impossible shape"),
    "a tensor of negative strides": (in_a_dict(tensor(strides=b"J\xff\xff\xff\xff\x85")), "impossible shape"),
    "a tensor of huge shape": (
        in_a_dict(tensor(shape=HUGE * 2 + b"\x86", strides=b"K\x00K\x00\x86")),
        "many times",
    ),
    "a tensor of too many axes": (
        in_a_dict(tensor(shape=b"(" + b"K\x01" * 99 + b"t", strides=b"(" + b"K\x00" * 99 + b"t")),
        "impossible shape",
    ),
    "many expanded tensors": (
        b"\x80\x02}("
        + b"".join(
            b"K" + bytes([n]) + tensor(shape=b"J\x00\x00\x00\x01\x85", strides=b"K\x00\x85")
            for n in range(99)
        )
        + b"u.",
        "many times",
    ),
    "a storage that is another size": (in_a_dict(tensor(count=2**40)), "has 16 bytes"),
    "a tensor without values of huge shape": (
        in_a_dict(
            b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n(ctorch\nfloat32\n" + HUGE * 2 + b"\x86)\x89tR"
        ),
        "many times",
    ),
    "a tensor of an unknown layout": (
        in_a_dict(b"ctorch._utils\n_rebuild_sparse_tensor\n(K\x01K\x02tR"),
        "TypeError",
    ),
}


COPIED = {
    "a set": b"\x80\x02(" + b"".join(b"J" + struct.pack("<i", n) for n in range(1000)) + b"lq\x00"
    b"c__builtin__\nset\nq\x01" + b"h\x01h\x00\x85R" * 1000 + b".",
    "text": b"\x80\x02X\x00\x10\x00\x00"
    + b"a" * 4096
    + b"q\x00c_codecs\nencode\nq\x01"
    + b"h\x01h\x00\x85R" * 1000
    + b".",
    "an unknown object": b"\x80\x02("
    + b"N" * 1000
    + b"tq\x00cmine\nThing\nq\x01"
    + b"h\x01h\x00R" * 1000
    + b".",
    "settings": b"\x80\x02}(" + b"".join(b"X\x04\x00\x00\x00%04d" % n + b"N" for n in range(2000)) + b"uq\x00"
    b"cargparse\nNamespace\nq\x01" + b"h\x01)Rh\x00b" * 1000 + b".",
}


@pytest.mark.parametrize("name", PICKLES)
def test_a_small_pickle_takes_little_time_and_memory(tmp_path: Path, name: str) -> None:
    pickled, words = PICKLES[name]
    path = tmp_path / "model.pt"
    save_pickle(path, pickled)
    memory = limited_memory() if "claimed" in name or "huge" in name else contextlib.nullcontext()
    with limited_time(), memory, pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["text of a claimed length", "a tensor of huge shape", "a list in itself"])
def test_so_does_one_with_samples(tmp_path: Path, name: str) -> None:
    path = tmp_path / "samples.pt"
    save_pickle(path, PICKLES[name][0])
    with limited_time(), limited_memory(), pytest.raises(InputError) as refused:
        read_samples(path)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("name", COPIED)
def test_copies_count_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(pickle_bounds, "_MOST_STEPS", 50_000)
    path = tmp_path / "model.pt"
    save_pickle(path, COPIED[name])
    with limited_time(), limited_memory(), pytest.raises(CheckpointError, match="more than 50000 values"):
        read_checkpoint(path)


def test_members_do_not_unfold_to_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pt"
    torch.save({"w": torch.zeros(1 << 20)}, path)
    with zipfile.ZipFile(path) as source:
        members = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in members.items():
            target.writestr(name, content)
    assert read_checkpoint(path).tensors["w"].shape == (1 << 20,)
    monkeypatch.setattr(torch_archives, "_ALLOWANCE", 1 << 20)
    with pytest.raises(CheckpointError, match="many times the size of the file"):
        read_checkpoint(path)


def test_an_old_file_claims_no_more_than_it_has(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"w": torch.zeros(4)}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"K\x04N", b"J\xff\xff\xff\x7fN"))
    with limited_time(), pytest.raises(CheckpointError, match="more than the file has"):
        read_checkpoint(path)
