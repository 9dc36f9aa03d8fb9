"""Containers of weights: every one reads to the same tensors, nothing in them runs, damage has an answer."""

import bz2
import gzip
import hashlib
import io
import json
import os
import pickle
import re
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.distributed import checkpoint as distributed
from torch.distributed.checkpoint import metadata as torch_metadata
from torch.distributed.checkpoint.filesystem import _StorageInfo

from fno_telemetry.errors import CheckpointError
from fno_telemetry.sources.checkpoints import read_checkpoint
from fno_telemetry.sources.weight_files import inflation, safetensors_files
from fno_telemetry.sources.weight_loading import load_weights

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.distributed:UserWarning")


def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "lift.weight": torch.randn(5, 2, generator=generator),
        "spectral": torch.randn(2, 3, dtype=torch.complex64, generator=generator),
        "count": torch.tensor(7),
        "half": torch.randn(4, generator=generator).to(torch.float16),
    }


def saved_bytes(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def assert_read(path: Path, expected: dict[str, torch.Tensor] | None = None, **options: object):
    checkpoint = read_checkpoint(path, **options)
    expected = weights() if expected is None else expected
    assert checkpoint.tensors.keys() == expected.keys()
    for name, value in expected.items():
        assert checkpoint.tensors[name].dtype == value.dtype
        assert torch.equal(checkpoint.tensors[name], value), name
    return checkpoint


def refusal(path: Path, **options: object) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sha256_of_list(*paths: Path) -> str:
    """What `sha256sum A B … | sha256sum` prints in their folder."""
    lines = "".join(f"{sha256(path)}  {path.name}\n" for path in paths)
    return hashlib.sha256(lines.encode()).hexdigest()


# ---- safetensors ----------------------------------------------------------------------------------------


def test_a_safetensors_file_and_the_folder_that_holds_it_are_one_checkpoint(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(weights(), path, metadata={"format": "pt", "iteration": "300"})
    for given in (path, tmp_path):
        checkpoint = assert_read(given)
        assert (checkpoint.step, checkpoint.step_kind) == (300, "step")
        assert checkpoint.sha256 == sha256(path)


def test_safetensors_are_known_by_their_content(tmp_path):
    save_file(weights(), tmp_path / "model.bin")
    assert_read(tmp_path / "model.bin")


def test_a_tensor_that_safetensors_left_out_as_a_copy_is_there(tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({"inner.weight": torch.ones(2, 2)}, path, metadata={"outer.weight": "inner.weight"})
    assert_read(path, {"inner.weight": torch.ones(2, 2), "outer.weight": torch.ones(2, 2)})


def test_what_was_read_does_not_change_with_the_file(tmp_path):
    path = tmp_path / "m.safetensors"
    save_file(weights(), path)
    checkpoint = read_checkpoint(path)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size - 64)
        file.write(bytes(64))
    assert torch.equal(checkpoint.tensors["lift.weight"], weights()["lift.weight"])


def sharded(folder: Path, ending: str = "safetensors") -> Path:
    """Two shards and their index."""
    shards: dict[str, dict[str, torch.Tensor]] = {}
    for number, (name, value) in enumerate(weights().items()):
        shards.setdefault(f"net-{number % 2 + 1:05d}-of-00002.{ending}", {})[name] = value
    for name, part in shards.items():
        save_file(part, folder / name) if ending == "safetensors" else torch.save(part, folder / name)
    index = folder / f"net.{ending}.index.json"
    index.write_text(json.dumps({"weight_map": {key: file for file, part in shards.items() for key in part}}))
    return index


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_an_index_joins_its_shards(tmp_path, ending):
    index = sharded(tmp_path, ending)
    first, second = sorted(tmp_path.glob(f"*.{ending}"))
    for given in (index, tmp_path):
        assert assert_read(given).sha256 == sha256_of_list(first, second, index)
    text = refusal(second)
    assert f"Name that: {index}" in text


def test_a_shard_without_its_index_is_read_alone(tmp_path):
    sharded(tmp_path).unlink()
    first, _ = sorted(tmp_path.glob("*.safetensors"))
    assert read_checkpoint(first).tensors.keys() == {"lift.weight", "count"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not an index"),
        ("[" * 100_000, "not an index"),
        ('{"weight_map": {"a": "../outside.safetensors"}}', "not a file next to it"),
        ('{"weight_map": {"a": ".."}}', "not a file next to it"),
        ('{"weight_map": {"a": ""}}', "not a file next to it"),
        ('{"weight_map": {"a": "x\\u0000y"}}', "not a file next to it"),
        ('{"weight_map": {"a": "\\ud800.bin"}}', "not a file next to it"),
        ('{"weight_map": {"a": 5}}', "not an index"),
        ('{"weight_map": {}}', "is empty"),
        ('{"layers": {}}', "weight_map"),
        ('{"weight_map": {"a": "gone-1-of-1.safetensors"}}', "no such file"),
    ],
)
def test_an_index_that_is_none_is_refused(tmp_path, text, words):
    path = tmp_path / "net.safetensors.index.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(path)


def test_a_folder_of_transformers_tells_its_step_beside_the_weights(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    save_file(weights(), folder / "model.safetensors")
    (folder / "trainer_state.json").write_text('{"global_step": 1500, "epoch": 2.5}')
    for given in (folder, folder / "model.safetensors"):
        checkpoint = read_checkpoint(given)
        assert (checkpoint.step, checkpoint.step_kind) == (1500, "step")
    (folder / "trainer_state.json").write_text("{" * 100_000)
    assert read_checkpoint(folder).step is None


def test_a_folder_with_several_files_or_none_says_what_it_holds(tmp_path):
    assert "it holds nothing" in refusal(tmp_path)
    for name in ("a", "b"):
        save_file(weights(), tmp_path / f"{name}.safetensors")
    assert "a.safetensors, b.safetensors" in refusal(tmp_path)


@pytest.mark.parametrize("limit", ["_LONGEST_HEADER", "_MOST_TENSORS"])
def test_safetensors_of_too_many_tensors_are_refused(tmp_path, monkeypatch, limit):
    path = tmp_path / "m.safetensors"
    save_file(weights(), path)
    read_checkpoint(path)
    monkeypatch.setattr(safetensors_files, limit, 1)
    assert re.search("larger than|more than", refusal(path))


@pytest.mark.parametrize("kept", [4, 20, 200, 0.6, 0.99])
def test_cut_safetensors_are_refused(tmp_path, kept):
    path = tmp_path / "m.safetensors"
    save_file(weights(), path)
    data = path.read_bytes()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    assert "truncated or damaged" in refusal(path)


# ---- PhysicsNeMo ----------------------------------------------------------------------------------------


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def write_zip(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


@pytest.mark.parametrize("write", [write_tar, write_zip])
@pytest.mark.parametrize("name", ["model.pt", "./model.pt"])
def test_both_forms_of_mdlus_are_read_and_their_names_give_the_epoch(tmp_path, write, name):
    if write is write_zip:
        name = "model.pt"
    path = tmp_path / "AFNO.0.12.mdlus"
    write(path, {"args.json": b"{}", "metadata.json": b"{}", name: saved_bytes(weights())})
    checkpoint = assert_read(path)
    assert (checkpoint.step, checkpoint.step_kind) == (12, "epoch")
    assert checkpoint.sha256 == sha256(path)


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("write", [write_tar, write_zip])
def test_nothing_inside_an_archive_runs_or_stays_behind(tmp_path, write, monkeypatch):
    trace, temporary = tmp_path / "trace", tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    path = tmp_path / "m.mdlus"
    write(path, {"model.pt": saved_bytes({"a": torch.ones(1), "b": Touch(trace)})})
    assert_read(path, {"a": torch.ones(1)})
    write(path, {"model.pt": saved_bytes(Touch(trace))})
    assert "system" in refusal(path)
    write(path, {"model.pt": saved_bytes(weights())[:-100]})
    assert f"{path}, model.pt" in refusal(path)
    assert not trace.exists()
    assert list(temporary.iterdir()) == []


def test_an_archive_of_other_things_says_what_is_in_it(tmp_path):
    path = tmp_path / "m.tar"
    write_tar(path, {"weights.pth": b"", "readme": b""})
    assert "tar archive with weights.pth, readme" in refusal(path)


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(inflation, "_ALWAYS", 1 << 20)
    path = tmp_path / "m.mdlus"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("model.pt", "w") as file:
        for _ in range(8):
            file.write(bytes(1 << 20))
    assert "claim" in refusal(path)


def test_cut_archives_are_refused(tmp_path):
    for write in (write_tar, write_zip):
        path = tmp_path / "m.mdlus"
        write(path, {"args.json": b"{}", "model.pt": saved_bytes(weights())})
        path.write_bytes(path.read_bytes()[:1500])
        refusal(path)


# ---- torch.distributed.checkpoint -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole_folder(tmp_path_factory) -> Path:
    """A folder that torch wrote in one process."""
    folder = tmp_path_factory.mktemp("run") / "epoch=1-step=40.ckpt"
    state = {
        "model": {f"net.{name}": value for name, value in weights().items()},
        "optimizer": {"state": {"0": {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]},
        "global_step": 41,
    }
    distributed.save(state, checkpoint_id=folder, no_dist=True)
    return folder


def test_a_distributed_folder_is_read_without_its_optimizer(whole_folder):
    checkpoint = assert_read(whole_folder, {f"net.{name}": value for name, value in weights().items()})
    assert (checkpoint.step, checkpoint.step_kind) == (41, "step")
    assert checkpoint.sha256 == sha256_of_list(*sorted(whole_folder.iterdir()))


def test_its_files_are_refused_with_the_name_of_the_folder(whole_folder):
    for name in (".metadata", "__0_0.distcp"):
        assert f"Name its folder: {whole_folder}" in refusal(whole_folder / name)


def test_the_settings_that_lightning_keeps_beside_it_are_read(tmp_path):
    distributed.save({"state_dict": weights()}, checkpoint_id=tmp_path, no_dist=True)
    torch.save({"global_step": 9, "hyper_parameters": {"modes": 5}}, tmp_path / "meta.pt")
    checkpoint = assert_read(tmp_path)
    assert (checkpoint.step, dict(checkpoint.hyper_parameters)) == (9, {"modes": 5})


def write_pieces(folder: Path, pieces: dict[tuple[int, ...], torch.Tensor], size: tuple[int, ...], **more):
    """Write one tensor in pieces by their offsets, a file each, as several processes do."""
    folder.mkdir(exist_ok=True)
    stored = {}
    chunks = []
    for number, (offset, part) in enumerate(pieces.items()):
        name = f"__{number}_0.distcp"
        data = saved_bytes(part)
        (folder / name).write_bytes(b"before" + data)
        index = torch_metadata.MetadataIndex("w", offset)
        stored[index] = _StorageInfo(name, 6, len(data), **more)
        chunks.append(torch_metadata.ChunkStorageMetadata(torch.Size(offset), part.shape))
    kind = torch_metadata.TensorStorageMetadata(torch_metadata.TensorProperties(), torch.Size(size), chunks)
    held = torch_metadata.Metadata({"w": kind}, storage_data=stored)
    (folder / ".metadata").write_bytes(pickle.dumps(held))


def test_pieces_of_several_processes_are_put_together(tmp_path):
    full = torch.arange(20.0).reshape(5, 4)
    pieces = {
        (0, 0): full[:3, :2],
        (3, 0): full[3:, :2],
        (0, 2): full[:3, 2:],
        (3, 2): full[3:, 2:],
    }
    write_pieces(tmp_path, {offset: part.clone() for offset, part in pieces.items()}, (5, 4))
    assert_read(tmp_path, {"w": full})


@pytest.mark.parametrize(
    ("pieces", "size", "words"),
    [
        ({(0, 0): torch.ones(2, 4)}, (5, 4), "pieces of w are missing"),
        ({(0, 0): torch.ones(2, 4), (4, 0): torch.ones(3, 4)}, (5, 4), "lies outside"),
        ({(0, 0): torch.ones(20)}, (5, 4), "other axes"),
        ({(0, 0): torch.ones(1).expand(10_000, 10_000)}, (10_000, 10_000), "times the numbers"),
        ({(0, 0): torch.ones(1, 1)}, (10**6, 10**6), "pieces of w are missing"),
        ({(0, 0): torch.ones(2, 2).to_sparse()}, (2, 2), "no dense tensor"),
    ],
)
def test_pieces_that_do_not_fit_are_refused(tmp_path, pieces, size, words):
    write_pieces(tmp_path, pieces, size)
    assert words in refusal(tmp_path)


def test_compressed_pieces_are_refused(tmp_path):
    write_pieces(tmp_path, {(0, 0): torch.ones(1, 1)}, (1, 1), transform_descriptors=["zstd"])
    assert "dcp_to_torch" in refusal(tmp_path)


def test_a_cut_or_missing_piece_is_refused(tmp_path):
    write_pieces(tmp_path, {(0, 0): torch.ones(2, 2)}, (2, 2))
    piece = tmp_path / "__0_0.distcp"
    piece.write_bytes(piece.read_bytes()[:-30])
    assert "cut short" in refusal(tmp_path)
    piece.unlink()
    assert "cannot be read" in refusal(tmp_path)


def test_a_pipe_in_place_of_a_piece_is_not_opened(tmp_path):
    write_pieces(tmp_path, {(0, 0): torch.ones(2, 2)}, (2, 2))
    piece = tmp_path / "__0_0.distcp"
    piece.unlink()
    os.mkfifo(piece)
    assert "__0_0.distcp is no file" in refusal(tmp_path)


def test_pieces_that_share_their_bytes_are_refused(tmp_path):
    write_pieces(tmp_path, {(0, 0): torch.ones(1, 2), (1, 0): torch.ones(1, 2)}, (2, 2))
    path = tmp_path / ".metadata"
    path.write_bytes(path.read_bytes().replace(b"__1_0.distcp", b"__0_0.distcp"))
    assert "at the same place in __0_0.distcp" in refusal(tmp_path)


def test_an_impossible_shape_is_refused(tmp_path):
    write_pieces(tmp_path, {(0, 0, 0, 0): torch.ones(0, 1, 1, 1)}, (0, 2**62, 2**62, 1))
    assert "w has an impossible shape" in refusal(tmp_path)


def nested_keys() -> bytes:
    """A pickle whose only key is a tuple of tuples of tuples: its hash would take years."""
    return b"\x80\x02})" + b"q\x01h\x01\x86" * 60 + b"K\x01s."


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(Touch(Path("trace"))),
        pickle.dumps({"storage_data": {}}),
        pickle.dumps({"a": 1}, 0),
        b"",
        b"\x80\x04",
        b"\x80\x04N0N.",
        b"\x80\x02]q\x00(h\x00e.",
        b"\x80\x04)\x94\x86.",
    ],
)
def test_hostile_and_damaged_metadata_are_refused_at_once(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f").mkdir()
    (tmp_path / "f/.metadata").write_bytes(data)
    refusal(tmp_path / "f")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_nested_keys_are_not_hashed(tmp_path):
    (tmp_path / ".metadata").write_bytes(nested_keys())
    assert "a key of more than" in refusal(tmp_path)


def test_metadata_may_not_lead_out_of_the_folder(tmp_path):
    write_pieces(tmp_path / "f", {(0, 0): torch.ones(2, 2)}, (2, 2))
    path = tmp_path / "f/.metadata"
    path.write_bytes(path.read_bytes().replace(b"\x8c\x0c__0_0.distcp", b"\x8c\x0c../../x.pt.."))
    assert "not a file in the folder" in refusal(tmp_path / "f")


# ---- DTensors -------------------------------------------------------------------------------------------


def split_tensor(ranks: int, placement: object) -> torch.Tensor:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor

    mesh = DeviceMesh("cpu", torch.arange(ranks), _init_backend=False, _rank=0)
    return DTensor.from_local(torch.arange(6.0).reshape(3, 2), mesh, [placement], run_check=False)


def test_dtensors_are_whole_when_one_rank_saved_them_or_each_has_all(tmp_path):
    from torch.distributed.tensor import Replicate, Shard

    path = tmp_path / "fsdp.pt"
    expected = torch.arange(6.0).reshape(3, 2)
    for ranks, placement in ((1, Shard(0)), (1, Replicate()), (4, Replicate())):
        torch.save({"model": {"w": split_tensor(ranks, placement)}}, path)
        tensor = assert_read(path, {"w": expected}).tensors["w"]
        assert type(tensor) is torch.Tensor


def test_dtensors_of_several_ranks_are_refused_with_what_to_do(tmp_path):
    from torch.distributed.tensor import Shard

    path = tmp_path / "fsdp.pt"
    for placement in (Shard(0), Shard(1)):
        torch.save({"w": split_tensor(2, placement)}, path)
        for trust in (False, True):
            text = refusal(path, trust=trust)
            assert "DTensor" in text
            assert "full_state_dict=True" in text


# ---- arrays, tuples, pickles ----------------------------------------------------------------------------


def test_arrays_are_weights_in_npz_and_pt(tmp_path):
    arrays = {name: value.numpy() for name, value in weights().items()}
    arrays["turned"] = np.asfortranarray(np.arange(6.0).reshape(2, 3).astype(">f8"))
    expected = weights() | {"turned": torch.arange(6.0, dtype=torch.float64).reshape(2, 3)}
    np.savez(tmp_path / "w.npz", **arrays, names=np.array(["a"]), things=np.array([{}], object))
    np.savez_compressed(tmp_path / "c.npz", **arrays)
    torch.save({"state_dict": arrays, "epoch": 3}, tmp_path / "w.pt")
    for name in ("w.npz", "c.npz", "w.pt"):
        assert_read(tmp_path / name, expected)


def test_damaged_arrays_are_refused(tmp_path):
    path = tmp_path / "w.npz"
    np.savez(path, a=np.arange(1000.0))
    data = bytearray(path.read_bytes())
    data[3000] ^= 1
    path.write_bytes(bytes(data))
    assert "truncated or damaged" in refusal(path)


@pytest.mark.parametrize("content", [(weights(), {"lr": 1}), [weights()], ({"model": weights()}, None, 3)])
def test_the_only_state_dict_of_a_tuple_is_taken(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    assert_read(tmp_path / "w.pt")


def test_of_a_tuple_of_several_the_first_is_taken_and_the_others_are_named(tmp_path):
    path = tmp_path / "w.pt"
    first, second = nn.Linear(2, 2).state_dict(), nn.Linear(2, 2).state_dict()
    torch.save((first, second, {"param_groups": []}), path)
    model = nn.Linear(2, 2)
    match = load_weights(model, read_checkpoint(path))
    assert torch.equal(model.weight, first["weight"])
    assert match.other_weights == ("1",)
    assert_read(path, dict(second), weights="1")


def test_a_plain_pickle_needs_trust(tmp_path):
    path = tmp_path / "w.pkl"
    path.write_bytes(pickle.dumps({"weight": torch.ones(2), "epoch": 4}))
    assert "a plain pickle" in refusal(path)
    assert_read(path, {"weight": torch.ones(2)}, trust=True)
    path.write_bytes(pickle.dumps({"weight": torch.ones(2)})[:-5])
    assert "unpickling it failed" in refusal(path, trust=True)


# ---- what is not read -----------------------------------------------------------------------------------


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("w.pt.gz", gzip.compress(b"weights", mtime=0), "gunzip"),
        ("w.bz2", bz2.compress(b"weights"), "bunzip2"),
        ("w.zst", b"\x28\xb5\x2f\xfd" + bytes(20), "unzstd"),
        ("w.h5", b"\x89HDF\r\n\x1a\n" + bytes(20), "HDF5"),
        ("w.keras", zipped("metadata.json", "model.weights.h5"), "Keras"),
        ("w.pt2", zipped("m/archive_format", "m/models/m.json"), "torch.export"),
        ("w.npy", b"\x93NUMPY\x01\x00" + bytes(20), ".npz"),
        ("w.onnx", b"\x08\x07\x12\x07pytorch" + bytes(20), "ONNX"),
        ("w.bin", b"\x08\x07\x12\x07pytorch" + bytes(20), "ONNX"),
        ("w.msgpack", b"\x81\xa6params\x80", "MessagePack"),
        ("flax_model.bin", b"\x81\xa6params\x80", "MessagePack"),
        ("w.gguf", b"GGUF\x03\x00\x00\x00", "GGUF"),
        ("w.pt", b"<!DOCTYPE html><html>sign in", "web page"),
        ("w.pt", b'{"message": "Not Found"}', "text"),
        ("w.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
        ("w.pt", b"", "empty"),
        ("w.pt", bytes(300), "not a PyTorch checkpoint"),
        ("w.pt", b"PK\x03\x04" + bytes(300), "damaged"),
    ],
)
def test_other_files_are_named_with_what_to_do(tmp_path, name, data, words):
    path = tmp_path / name
    path.write_bytes(data)
    for trust in (False, True):
        assert words in refusal(path, trust=trust)
